"""A small network in ComfyUI's ways, or in a stand-in for them, and as an Engine has it."""

from __future__ import annotations

import math
from typing import Any

import comfyui_peer as peer
import torch
from torch import Tensor, nn

from reg_engine import Denoiser, Engine, schedules
from reg_engine.integrations.comfyui import Settings, attach

if peer.REAL:
    import comfyui_real as peer  # type: ignore[no-redef]  # noqa: F811

SHAPE, WIDTH = (4, 8, 8), 6
EDM, FLOW = schedules.EDM(), schedules.Flow()
# eps: points of the table, so that a time is a step exactly
SIGMAS = {
    "eps": [float(peer.TABLE[i]) for i in (900, 760, 600, 430, 240, 60)] + [0.0],
    "flow": [1.0, 0.85, 0.7, 0.5, 0.3, 0.1, 0.0],
}


class Net(nn.Module):
    """Convolutions with normalisation; time and context go in as scale and shift."""

    def __init__(self) -> None:
        super().__init__()
        self.dtype = torch.float32
        self.first = nn.Conv2d(4, 16, 3, padding=1)
        self.told = nn.Linear(WIDTH + 2, 32)
        self.norm = nn.GroupNorm(4, 16)
        self.middle = nn.Conv2d(16, 16, 3, padding=1)
        self.last = nn.Conv2d(16, 4, 3, padding=1)
        self.register_buffer("gain", torch.tensor(0.5))

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor,
        control: Any = None,
        transformer_options: Any = None,
        **_: Any,
    ) -> Tensor:
        time = torch.stack([(t / 300).cos(), (t / 300).sin()], 1).to(x.dtype)
        told = self.told(torch.cat([context.mean(1), time], 1))[..., None, None]
        scale, shift = told.chunk(2, 1)
        h = self.first(x)
        h = self.norm(h) * (1 + self.gain * scale) + shift
        if control is not None:
            h = h + (control["middle"][0] if isinstance(control, dict) else control)
        h = h + self.middle(nn.functional.silu(h))
        return self.last(nn.functional.silu(h))


def network(dtype: torch.dtype = torch.float32, inference: bool = True) -> Net:
    """The same weights each time; made in inference mode as ComfyUI makes them."""
    torch.manual_seed(3)
    with torch.inference_mode(inference):
        net = Net().requires_grad_(False).eval()
        for one in (net.last, net.told):
            one.weight.mul_(2.0)
        net.dtype = dtype
        return net.to(dtype)


def prompts(seed: int = 0, tokens: int = 3) -> tuple[Tensor, Tensor]:
    """(positive, negative) (1, tokens, WIDTH)."""
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, 1, tokens, WIDTH, generator=generator)
    return first, second


def noise(count: int, shape: tuple[int, ...] = SHAPE, dtype: torch.dtype = torch.float32) -> Tensor:
    drawn = torch.randn(count, *shape, generator=torch.Generator().manual_seed(5))
    return drawn.to(dtype)


def euler(model: Any, x: Tensor, sigmas: Tensor, **extra: Any) -> Tensor:
    for sigma, then in zip(sigmas, sigmas[1:], strict=False):
        denoised = model(x, sigma * x.new_ones(len(x)), **extra)
        x = x + (then - sigma) * (x - denoised) / sigma
    return x


def dpmpp_2m(model: Any, x: Tensor, sigmas: Tensor, **extra: Any) -> Tensor:
    """Lu et al. 2022 (arXiv 2211.01095), in noise levels."""
    old = None
    for i, (sigma, then) in enumerate(zip(sigmas.tolist(), sigmas.tolist()[1:], strict=False)):
        denoised = model(x, sigma * x.new_ones(len(x)), **extra)
        h = math.log(sigma / then) if then else math.inf
        d = denoised
        if old is not None and then:
            r = math.log(float(sigmas[i - 1]) / sigma) / h
            d = denoised + (denoised - old) / (2 * r)
        x = then / sigma * x - math.expm1(-h) * d
        old = denoised
    return x


SOLVERS = {"euler": euler, "dpmpp_2m": dpmpp_2m}


class Sampler:
    """A sampler of ComfyUI around a loop."""

    def __init__(self, solver: str = "euler", after: Any = None) -> None:
        self.loop, self.after = SOLVERS[solver], after

    def sample(
        self,
        guider: Any,
        sigmas: Tensor,
        extra: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent: Any = None,
        mask: Any = None,
        disable: bool = False,
    ) -> Tensor:
        sampling = guider.inner_model.model_sampling
        x = sampling.noise_scaling(sigmas[:1], noise.clone(), torch.zeros_like(noise))

        def model(x: Tensor, sigma: Tensor, **more: Any) -> Tensor:
            found = guider(x, sigma, **more)
            if self.after is not None:
                self.after(guider, float(sigma[0]))
            return found

        return self.loop(model, x, sigmas, **extra)


def sampled(
    patcher: Any,
    x: Tensor,
    cfg: float = 4.0,
    kind: str = "eps",
    solver: str = "euler",
    conds: Any = None,
    after: Any = None,
) -> Tensor:
    """A run as a node of ComfyUI makes it: in inference mode, of inference tensors."""
    with torch.inference_mode():
        given = [[[c.clone(), {}]] for c in prompts()] if conds is None else conds
        guider = peer.Guider(patcher, *given, cfg)
        sigmas = torch.tensor(SIGMAS[kind], dtype=x.dtype)
        return guider.sample(x.clone(), torch.zeros_like(x), Sampler(solver, after), sigmas)


def patched(kind: str = "eps", net: Net | None = None, **settings: Any) -> Any:
    """A model with REG guidance."""
    with torch.inference_mode():
        model = peer.Patcher(peer.Model(network() if net is None else net, kind))
        return attach(model, Settings(**settings), peer.calc_cond_batch)


def denoiser(
    kind: str, shape: tuple[int, ...] = SHAPE, dtype: torch.dtype = torch.float32
) -> Denoiser:
    """The same network, wrapped by hand; its conditioning is the context."""
    net, table = network(dtype, inference=False), peer.TABLE.double()

    def eps(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        steps = (table[:, None] - t.double()).abs().argmin(0)
        return net(x, steps.to(x.dtype), context=cond.to(x.dtype))

    def flow(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return net(x, 1000 * t, context=cond.to(x.dtype))

    null = prompts()[1]
    if kind == "eps":
        return Denoiser(eps, "epsilon", EDM, shape, null, input_scaling="variance")
    return Denoiser(flow, "flow", FLOW, shape, null)


def by_engine(x: Tensor, kind: str, solver: str = "euler", **choices: Any) -> Any:
    """What the engine makes of the same noise."""
    options = {"solver": solver, "solver_options": {"times": SIGMAS[kind]}, "progress": False}
    model = denoiser(kind, tuple(x.shape[1:]), x.dtype)
    engine = Engine(model, dtype=x.dtype, **options, **choices)
    return engine.sample(prompts()[0], range(len(x)), noise=x)
