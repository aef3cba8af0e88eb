"""The relative step of a finite difference: the dtype's rounding decides how small it may be."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from bound_cases import LEAST, MOST, holds
from nets import SHAPE, TinyNet, tiny
from torch import Tensor

from reg_engine import Denoiser, InputError, schedules
from reg_engine.guidance.directions import Delta
from reg_engine.guidance.references import Unconditional
from reg_engine.networks.point import Point
from reg_engine.rectifiers import FD, JVP, DiagonalBatched, FDBatched
from reg_engine.rectifiers.difference import RHO
from reg_engine.solvers import table


class Plain(TinyNet):
    """TinyNet in its weights' dtype throughout."""

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        h = self.enter(x.flatten(1)) + self.label(cond) + t[:, None].cos().to(x.dtype)
        return self.leave(torch.tanh(h)).reshape_as(x)


def point(net: Plain, index: int) -> Point:
    """16 states of unit data at a row of EDM; of the network's dtype, but at least float32."""
    schedule = schedules.EDM()
    row = table("euler", schedule, 8).rows[index]
    g = torch.Generator().manual_seed(index)
    x = torch.randn(16, *SHAPE, dtype=torch.float64, generator=g) * (row.sigma**2 + 0.25) ** 0.5
    x = x.to(torch.promote_types(net.enter.weight.dtype, torch.float32))
    return Point(x, row, index, tiny(net=net), Unconditional(), torch.arange(16) % 3, {})


def error(dtype: torch.dtype, factor: float = 1.0) -> float:
    """Relative error of K delta at `factor` times the dtype's own step, a mean over three rows."""
    net = Plain().to(dtype)
    exact_net = Plain().double()
    exact_net.load_state_dict(net.state_dict())
    errors = []
    with torch.no_grad():
        for index in (1, 3, 5):
            _, exact, delta = JVP("delta")(point(exact_net, index), Delta())
            p = point(net, index)
            rectifier = FD() if factor == 1 else FD(factor * RHO[dtype])
            got = rectifier.product(p, delta.to(p.x.dtype), p.cond_at(p.x))
            errors.append((got.double() - exact).norm() / exact.norm())
    return float(torch.stack(errors).mean())


@pytest.mark.parametrize("dtype", list(RHO))
def test_the_error_is_truncation_and_rounding(dtype: torch.dtype) -> None:
    """rho times the curvature (1 for this network) plus what rounding leaves after dividing by
    rho."""
    rho, rounding = RHO[dtype], torch.finfo(dtype).eps
    assert rho >= 0.9 * rounding**0.5, "below it rounding is the larger part"
    assert error(dtype) <= 1.5 * (rho + rounding / rho)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_16_bit_network_has_its_best_step(dtype: torch.dtype) -> None:
    best = error(dtype)
    assert best < error(dtype, 1 / 5) and best < error(dtype, 5)


@pytest.mark.parametrize("kind", [FD, FDBatched, DiagonalBatched])
def test_a_step_is_any_positive_number(kind: Any) -> None:
    holds(kind, "rho", (LEAST, MOST), (0.0, math.inf))
    assert kind().rho is None
    holds(DiagonalBatched, "probes", (1, 3), (0, 1.0))


@pytest.mark.parametrize("shape", [(1,), (3, 5)])
@pytest.mark.parametrize("index", [0, 5])
def test_a_step_is_relative_to_the_state_or_to_a_tenth_of_the_noise(
    shape: tuple[int, ...], index: int
) -> None:
    """rms(h d) = rho max(rms(x), sigma/10), sample by sample, and alpha/h scales back."""
    flow = schedules.Flow(3.0)
    row = table("flow_euler", flow, 8, times=torch.linspace(0.9, 0, 9).tolist()).rows[index]
    net = Denoiser(lambda x, t, cond: x, "flow", flow, shape)
    x = torch.tensor([2.0, 0.03, 0.0, -1.0], dtype=torch.float64)
    d = torch.tensor([0.5, -4.0, 3.0, 0.0], dtype=torch.float64)
    many = [torch.ones(4, *shape, dtype=torch.float64) * v.reshape(4, *[1] * len(shape))
            for v in (x, d)]  # fmt: skip
    p = Point(many[0], row, index, net, Unconditional(), None, {})
    h, inverse = FD(rho=0.01).lengths(p, many[1])
    wanted = 0.01 * x.abs().clamp_min(0.1 * row.sigma) / d.abs()
    assert torch.allclose(h[:3], wanted[:3], rtol=1e-12, atol=0)
    assert torch.allclose(inverse[:3], row.alpha / wanted[:3], rtol=1e-12, atol=0)
    assert (h[3], inverse[3]) == (0, 0), "no direction, no step"
    with pytest.raises(InputError, match="^backend: .*elsewhere"):
        FD(rho=0.01).lengths(replace(p, backend="elsewhere"), many[1])
