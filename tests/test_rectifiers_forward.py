"""K times a tangent by stacked rows: ops whose forward rule PyTorch lacks or limits, threads side
by side, and what is told when memory runs out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import forward_ad
import pytest
import torch
import torch.autograd.forward_ad as fwAD
import torch.nn.functional as F
from forward_points import SHAPE, error, images
from torch import Tensor, nn

from reg_engine import Denoiser, sample, schedules
from reg_engine.forward import is_dual
from reg_engine.guidance.directions import Delta
from reg_engine.networks.point import Point
from reg_engine.networks.sharing import rerouted
from reg_engine.noise import SampleNoise
from reg_engine.rectifiers import make
from reg_engine.rectifiers.auto import choose
from reg_engine.rectifiers.forward import JVP, DiagonalJVP, product, products


def test_blocks_run_as_they_are_not_compiled() -> None:
    """A compiled block drops its tangent, where a residual path keeps one nobody would notice."""

    block = nn.Linear(4, 4).double().requires_grad_(False)
    net = lambda x, t, c: x + block(x)  # noqa: E731
    with rerouted({block: lambda x: F.linear(x.detach(), block.weight, block.bias)}):
        assert error(net) < 1e-8


def test_passes_of_threads_run_side_by_side() -> None:
    """Of different layouts, each with a plain call of the same network beside it."""
    inside = threading.Barrier(3, timeout=20)
    layer = nn.Linear(4, 4).double().requires_grad_(False)

    def net(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        inside.wait()  # all three are in the network now
        for _ in range(20):
            x = layer(x).sin()
        return x

    point = images(net)
    tangent = torch.randn_like(point.x)
    works: dict[str, Callable[[], Tensor]] = {
        "one": lambda: product(point, tangent)[1],
        "three": lambda: products(point, tangent, 2 * tangent, -tangent)[2][0],
        "plain": lambda: point.cond_at(point.x),
    }
    found: dict[str, list[Tensor]] = {name: [] for name in works}

    def run(name: str) -> None:
        with torch.no_grad():
            found[name] += [works[name]() for _ in range(5)]

    threads = [threading.Thread(target=run, args=(name,)) for name in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(results) == 5 for results in found.values())
    assert all(torch.equal(results[0], r) for results in found.values() for r in results)
    torch.testing.assert_close(found["one"][0], found["three"][0], rtol=1e-12, atol=1e-14)


def test_an_open_dual_level_does_not_matter() -> None:
    point = images(lambda x, t, c: x.sin())
    wanted = make("jvp")(point, Delta())[1]
    with fwAD.dual_level():
        assert torch.equal(make("jvp")(point, Delta())[1], wanted)


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
        if x.requires_grad or is_dual(x):
            raise kind
        return x.sin()

    point = images(net)
    with pytest.raises(type(kind)) as raised:
        make("jvp")(point, Delta())
    assert raised.value is kind
    rectifier, reason = choose(point, 3, None)
    assert rectifier.name == "fd_batched" and "memory" in reason


def direct(point: Point, tangent: Tensor) -> Tensor:
    """K tangent by PyTorch's forward AD."""
    return point.alpha * forward_ad.jvp(point.cond_at, point.x, tangent)[1]


class Mixed(nn.Module):
    """A convolution, a norm and attention, in an edm frame."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.enter, self.leave = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
        self.norm, self.label = nn.GroupNorm(2, 8), nn.Embedding(3, 8)
        self.mix = nn.MultiheadAttention(8, 2, batch_first=True)
        self.double().eval().requires_grad_(False)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        h = self.enter(x) * (1 + self.label(cond))[:, :, None, None] + t.view(-1, 1, 1, 1).to(
            x.dtype
        )
        h = F.silu(self.norm(h))
        tokens = h.flatten(2).transpose(1, 2)
        tokens = tokens + self.mix(tokens, tokens, tokens)[0]
        return self.leave(tokens.transpose(1, 2).reshape_as(h))


def guided() -> tuple[Point, Tensor, Tensor]:
    """A point of `Mixed` in an edm frame, and cond and delta there."""
    point = images(Mixed())
    denoiser = Denoiser(point.denoiser.net, "edm", schedules.EDM(), SHAPE, 2, num_classes=2)
    point = replace(point, denoiser=denoiser)
    ref, cond = point.stack(point.x)
    return point, cond, cond - ref


def test_each_way_along_gives_its_own_product() -> None:
    point, cond, delta = guided()
    ones, exact = direct(point, torch.ones_like(point.x)), direct(point, delta)
    for rectifier, wanted in ((JVP("delta"), exact), (JVP("ones"), ones * delta)):
        found = rectifier(point, Delta())
        for one, other in zip(found, (cond, wanted, delta), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    point.memory["delta"] = lag = torch.randn_like(delta)
    lag[1] = 0  # a sample without a previous delta: the exact product
    along = direct(point, lag)
    a, r = (
        (u * v).sum((1, 2, 3)) / (lag * lag).sum((1, 2, 3)) for u, v in ((delta, lag), (along, lag))
    )
    a, r = (v.view(-1, 1, 1, 1) for v in (a, r))
    wanted = a * along + r * (delta - a * lag)
    wanted[1] = exact[1]
    for rectifier in (JVP(), JVP(apart=True)):
        torch.testing.assert_close(rectifier(point, Delta())[1], wanted, rtol=1e-9, atol=1e-11)


def test_diagonal_is_hutchinsons_mean_over_its_probes() -> None:
    point, cond, delta = guided()
    point.probes = SampleNoise([3, 4, 5], "probes")
    signs = [point.probes.signs(point.x) for _ in range(3)]
    wanted = sum(z * direct(point, z) for z in signs) / 3 * delta
    point.probes = SampleNoise([3, 4, 5], "probes")
    found = DiagonalJVP(probes=3)(point, Delta())
    for one, other in zip(found, (cond, wanted, delta), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e30])
def test_the_size_of_a_tangent_does_not_matter(size: float) -> None:
    point, _, _ = guided()
    tangent = torch.randn_like(point.x)
    found = product(point, size * tangent)[1]
    torch.testing.assert_close(found, size * direct(point, tangent), rtol=1e-8, atol=0)


def test_float16_does_not_overflow() -> None:
    """A tangent of rms 1e4 in a network of float16."""
    point, _, _ = guided()
    net = Mixed().half()
    half = Denoiser(net, "edm", schedules.EDM(), SHAPE, 2, num_classes=2)
    tangent = 1e4 * torch.randn_like(point.x)
    found = product(replace(point, denoiser=half), tangent)[1]
    wanted = direct(point, tangent)
    assert (found - wanted).norm() < 0.02 * wanted.norm()


def test_ops_without_a_rule_are_counted_in_the_stats() -> None:
    class Cubic(nn.Module):
        def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            return torch.addcmul(x, x, x, value=0.01) * (1 + cond.view(-1, 1, 1, 1))

    denoiser = Denoiser(Cubic(), "epsilon", schedules.ScaledLinear(), SHAPE, 2, num_classes=2)
    out = sample(denoiser, [0, 1], scale=2.0, steps=4, solver="euler", rectify="jvp")
    assert out.stats.fallbacks == {"addcmul": 4}  # one pass of stacked rows a row of the table
    assert "fallbacks" in out.stats.as_dict()
