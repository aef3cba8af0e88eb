"""Dual passes: ops whose forward rule PyTorch lacks or limits, turns between threads, and what is
told when memory or the dual level is not to be had."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as fwAD
import torch.nn.functional as F
from nets import flow_point
from reg_engine.rectifiers.dual import dual_pass
from torch import Tensor, nn

from reg_engine import Denoiser, EstimatorError, schedules
from reg_engine.guidance.directions import Delta
from reg_engine.networks.point import Point
from reg_engine.networks.sharing import rerouted
from reg_engine.rectifiers import make
from reg_engine.rectifiers.auto import choose
from reg_engine.rectifiers.forward import product

SHAPE = (4, 4, 4)


def images(net: Callable[..., Tensor]) -> Point:
    """A point of images (4, 4, 4) in float64, at t = 1/2 of a flow."""
    denoiser = Denoiser(net, "sample", schedules.Flow(), SHAPE, 2, num_classes=2)
    x = torch.randn(3, *SHAPE, dtype=torch.float64)
    return replace(flow_point(3), x=x, denoiser=denoiser)


def error(net: Callable[..., Tensor]) -> float:
    """Of the dual product beside central differences, relative."""
    point = images(net)
    tangent, h = torch.randn_like(point.x), 1e-5
    with torch.no_grad():
        plus, minus = (point.cond_at(point.x + sign * h * tangent) for sign in (1, -1))
    wanted = point.alpha * (plus - minus) / (2 * h)
    return float((product(point, tangent)[1] - wanted).norm() / wanted.norm())


class ChannelsLast(nn.Module):
    """GroupNorm behind a convolution in the channels_last format."""

    def __init__(self, norm: Callable[[Tensor, int, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), norm
        self.weight, self.bias = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(4))
        self.double().to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        h = self.conv(x.to(memory_format=torch.channels_last))
        assert not h.is_contiguous()
        return torch.tanh(self.norm(h, 2, self.weight, self.bias))


NORMS: dict[str, Callable[..., Tensor]] = {
    "functional": F.group_norm,
    "torch": torch.group_norm,
    "keywords": lambda x, n, w, b: F.group_norm(input=x, num_groups=n, weight=w, bias=b),
    "overload": lambda x, n, w, b: torch.ops.aten.group_norm.default(x, n, w, b),
    "module": lambda x, n, w, b: nn.GroupNorm(n, 4).double()(x),
}


@pytest.mark.parametrize("norm", NORMS)
def test_group_norm_takes_any_memory_format(norm: str) -> None:
    assert error(ChannelsLast(NORMS[norm]).requires_grad_(False)) < 1e-8


@pytest.mark.parametrize(
    "norm",
    [
        nn.GroupNorm(2, 4),
        nn.LayerNorm(4),
        nn.BatchNorm2d(4).eval(),
        nn.InstanceNorm2d(4, affine=True),
    ],
    ids=lambda norm: type(norm).__name__,
)
def test_norms_beside_wider_weights_keep_the_inputs_dtype(norm: nn.Module) -> None:
    """Weights in float32, everything else in bfloat16: a common way to hold a network."""
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    norm.requires_grad_(False)
    x, tangent = torch.randn(2, 2, *SHAPE)
    wanted = torch.func.jvp(norm, (x,), (tangent,))[1]
    with dual_pass(norm):
        dual = norm(fwAD.make_dual(x.bfloat16(), tangent.bfloat16()))
        found = fwAD.unpack_dual(dual)
    assert found.primal.dtype == found.tangent.dtype == torch.bfloat16
    assert (found.tangent - wanted).norm() < 0.02 * wanted.norm()


class Tokens(nn.Module):
    """Attention over the rows of an image, by any of PyTorch's ways."""

    def __init__(self, mix: Any) -> None:
        super().__init__()
        self.mix = mix
        self.double().eval().requires_grad_(False)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return self.mix(x.reshape(-1, 16, 4)).reshape_as(x)


class Multihead(nn.MultiheadAttention):
    def __init__(self, **options: Any) -> None:
        super().__init__(4, 2, batch_first=True)
        self.options = options

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        output, weights = super().forward(x, x, x, **self.options)
        assert (weights is not None) == self.options["need_weights"]
        return output


def heads(x: Tensor) -> Tensor:
    return x.reshape(-1, 16, 2, 2).transpose(1, 2)


class Scripted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        q = x.reshape(-1, 16, 2, 2).transpose(1, 2)
        return F.scaled_dot_product_attention(q, q, q)


def mixers() -> dict[str, Any]:
    torch.manual_seed(3)
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    causal = torch.ones(16, 16, dtype=torch.bool).triu(1)
    return {
        "encoder": layer,
        "stack": nn.TransformerEncoder(layer, 2),
        "heads": Multihead(need_weights=False),
        "weights": Multihead(need_weights=True),
        "causal": Multihead(need_weights=False, is_causal=True, attn_mask=causal),
        "call": lambda x: F.scaled_dot_product_attention(heads(x), heads(x), heads(x)),
        "script": torch.jit.script(Scripted()),
    }


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("name", mixers())
def test_attention_has_a_tangent_however_it_is_called(name: str) -> None:
    mix = mixers()[name]
    net = Tokens(mix) if isinstance(mix, nn.Module) else lambda x, t, c: mix(x).reshape(x.shape)
    assert error(net) < 1e-8


def test_diffusers_unet_has_a_tangent() -> None:
    """Its convolutions leave GroupNorm an input that is not contiguous behind attention."""
    diffusers = pytest.importorskip("diffusers")
    net = diffusers.UNet2DModel(
        sample_size=4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        attention_head_dim=4,
        layers_per_block=1,
        down_block_types=("AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D"),
    )
    net = net.double().eval().requires_grad_(False).to(memory_format=torch.channels_last)
    assert error(lambda x, t, c: net(x, t).sample) < 1e-8


def test_another_thread_keeps_its_kernels_meanwhile() -> None:
    """While a dual pass is open in this thread, a plain call elsewhere is the plain call."""
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval().requires_grad_(False)
    x = torch.randn(3, 16, 4)
    q = torch.randn(2, 2, 16, 8)
    found: list[Tensor] = []

    @torch.no_grad()
    def plain() -> None:
        found.extend((layer(x), F.scaled_dot_product_attention(q, q, q)))

    plain()
    with dual_pass(layer):
        thread = threading.Thread(target=plain)
        thread.start()
        thread.join()
        slow = layer(x)
    assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[3])
    assert not torch.equal(slow, found[0]), "the fused path must be off here"
    assert torch.backends.mha.get_fastpath_enabled()


def test_blocks_run_as_they_are_not_compiled() -> None:
    """A compiled block drops its tangent, where a residual path keeps one nobody would notice."""

    block = nn.Linear(4, 4).double().requires_grad_(False)
    net = lambda x, t, c: x + block(x)  # noqa: E731
    with rerouted({block: lambda x: F.linear(x.detach(), block.weight, block.bias)}):
        assert error(net) < 1e-8


def test_dual_passes_of_threads_take_turns() -> None:
    inside, most, lock = 0, 0, threading.Lock()
    both = threading.Barrier(2)

    def net(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        for _ in range(50):
            x = x.sin()
        with lock:
            inside -= 1
        return x

    point, found = images(net), list[Tensor]()
    tangent = torch.randn_like(point.x)

    def run() -> None:
        both.wait()
        found.extend(product(point, tangent)[1] for _ in range(20))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and len(found) == 40
    assert all(torch.equal(found[0], other) for other in found)


def test_an_open_dual_level_is_named_and_not_blamed_on_the_network() -> None:
    point = images(lambda x, t, c: x.sin())
    with fwAD.dual_level(), pytest.raises(EstimatorError, match="inside a forward derivative"):
        make("jvp")(point, Delta())
    assert make("jvp")(point, Delta())[1].isfinite().all()


@pytest.mark.parametrize(
    "kind",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
    ids=["device", "host"],
)
def test_memory_that_runs_out_is_told_as_it_is(kind: Exception) -> None:
    """Not as a network without rules; `auto` takes what needs less."""

    def net(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        if x.requires_grad or fwAD.unpack_dual(x).tangent is not None:
            raise kind
        return x.sin()

    point = images(net)
    with pytest.raises(type(kind)) as raised:
        make("jvp")(point, Delta())
    assert raised.value is kind
    rectifier, reason = choose(point, 3, None)
    assert rectifier.name == "fd_batched" and "memory" in reason
