"""Networks that differentiate rightly, and some that lose a part of their derivative."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from reg_engine import Denoiser, schedules

SHAPE, NULL = (1, 8, 8), 10
Function = Callable[[Tensor], Tensor]


class Residual(nn.Module):
    """Two residual branches of two 3x3 convolutions, with a class embedding.

    Args:
        act: between the convolutions.
        around: what a branch is called through: `around(branch, h)`.
        gain: of the second branch.
    """

    def __init__(
        self,
        act: Function = F.silu,
        around: Callable[[nn.Module, Tensor], Tensor] | None = None,
        gain: float = 1.0,
        width: int = 16,
    ) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.act, self.around, self.gain = act, around, gain
        self.enter, self.leave = (nn.Conv2d(*c, 3, padding=1) for c in ((1, width), (width, 1)))
        self.label = nn.Embedding(NULL + 1, width)
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(4, width),
                nn.Conv2d(width, width, 3, padding=1),
                Act(act),
                nn.Conv2d(width, width, 3, padding=1),
            )
            for _ in range(2)
        )

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        h = (
            self.enter(x)
            + (self.label(cond) + 0.1 * t[:, None].cos().to(x.dtype))[:, :, None, None]
        )
        first, second = self.branches
        h = h + first(h)
        h = h + self.gain * (second(h) if self.around is None else self.around(second, h))
        return self.leave(h)


class Act(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Around(nn.Module):
    """`function(net, x, t, cond)`."""

    def __init__(self, function: Callable[..., Tensor], net: nn.Module | None = None) -> None:
        super().__init__()
        self.function, self.net = function, net

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return self.function(self.net, x, t, cond)


class Perceptron(nn.Module):
    def __init__(self, act: Function, depth: int) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.act, self.layers = act, nn.ModuleList(nn.Linear(64, 64) for _ in range(depth))
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        h = x.flatten(1) + cond[:, None].to(x.dtype) / 10
        for layer in self.layers:
            h = self.act(layer(h))
        return h.reshape(x.shape)


class Transformer(nn.Module):
    def __init__(self, sharpness: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.sharpness = sharpness
        self.enter, self.leave = nn.Linear(4, 32), nn.Linear(32, 4)
        self.norm, self.mix = nn.LayerNorm(32), nn.Linear(32, 96)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        h = self.enter(x.reshape(len(x), 16, 4)) + cond[:, None, None].to(x.dtype) / 10
        q, k, v = (self.sharpness * self.mix(self.norm(h))).chunk(3, -1)
        h = h + F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return self.leave(h).reshape(x.shape)


def smooth() -> Iterator[tuple[str, nn.Module]]:
    """Networks whose derivative is right: smooth, with kinks, stochastic, flat, quantised."""
    for act in (F.silu, F.relu, F.gelu, F.leaky_relu, torch.abs, F.hardswish):
        yield f"residual {act.__name__}", Residual(act)
    yield "steep", Residual(gain=10.0)
    for act, depth in ((torch.tanh, 4), (F.relu, 4), (F.relu, 16)):
        yield f"perceptron {act.__name__} {depth}", Perceptron(act, depth)
    yield "transformer", Transformer()
    yield "sharp transformer", Transformer(8.0)
    functions: dict[str, Callable[..., Tensor]] = {
        "pooled": lambda m, x, t, y: m(F.interpolate(F.max_pool2d(x, 2), scale_factor=2), t, y),
        "clamped": lambda m, x, t, y: m(x, t, y).clamp(-0.3, 0.3),
        "dropout": lambda m, x, t, y: m(F.dropout(x, 0.2, True), t, y),
        "noise": lambda m, x, t, y: m(x + 0.1 * torch.randn_like(x), t, y),
        "sign": lambda m, x, t, y: m(x, t, y) + 0.1 * x.sign(),
        "finely rounded": lambda m, x, t, y: m(x, t, y) + (64 * x).round() / 64 - x,
    }
    for name, function in functions.items():
        yield name, Around(function, Residual())
    yield "zero", Around(lambda m, x, t, y: 0 * x)
    yield "identity", Around(lambda m, x, t, y: x.clone())


class NoRules(torch.autograd.Function):
    """A branch whose author wrote that its derivative is zero, in both directions."""

    @staticmethod
    def forward(branch: nn.Module, h: Tensor) -> Tensor:
        return branch(h).clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.shape = output.shape

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, torch.zeros_like(gradient)

    @staticmethod
    def jvp(ctx: Any, branch: None, tangent: Tensor) -> Tensor:
        return torch.zeros_like(tangent)


def _no_grad(branch: nn.Module, h: Tensor) -> Tensor:
    with torch.no_grad():
        return branch(h)


def _numpy(branch: nn.Module, h: Tensor) -> Tensor:
    return torch.from_numpy(branch(h.detach()).detach().float().numpy()).to(h)


def _unseen(branch: nn.Module, h: Tensor) -> Tensor:
    """As a compiled extension is called: it sees the numbers, and gives plain ones."""
    with torch._C.DisableTorchFunctionSubclass(), torch.no_grad():
        return branch(h.detach()).clone()


# What a branch can be called through, and which derivatives lose it.
LOST: dict[str, tuple[Callable[[nn.Module, Tensor], Tensor], tuple[str, ...]]] = {
    "no_grad": (_no_grad, ("reverse",)),
    "detached": (lambda branch, h: branch(h.detach()), ("reverse",)),
    "numpy": (_numpy, ("reverse", "forward")),
    "doubled": (lambda branch, h: 2 * branch(h) - branch(h).detach(), ("reverse",)),
    "zero rules": (NoRules.apply, ("reverse",)),
    "out of sight": (_unseen, ("reverse", "forward")),
}


def _written(branch: nn.Module, h: Tensor) -> Tensor:
    out = branch(h).exp()
    product = out * out
    out.mul_(1.0)  # the product's backward pass wants it as it was
    return product.log() / 2


class NoBackward(torch.autograd.Function):
    """An op that says in its backward pass that it has none."""

    @staticmethod
    def forward(h: Tensor) -> Tensor:
        return h.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise NotImplementedError("no backward rule")

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return tangent.clone()


# A forward pass that records without complaint, and a backward pass that fails.
UNPULLABLE: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "re-entrant checkpoint": lambda branch, h: checkpoint(branch, h, use_reentrant=True),
    "written in place": _written,
    "no backward rule": lambda branch, h: branch(NoBackward.apply(h)),
}


def seen(net: object, prediction: str = "epsilon", **options: Any) -> Denoiser:
    """The network as a denoiser of 8 x 8 images in ten classes."""
    schedule = schedules.EDM() if prediction == "edm" else schedules.ScaledLinear()
    return Denoiser(net, prediction, schedule, SHAPE, null_cond=NULL, num_classes=NULL, **options)
