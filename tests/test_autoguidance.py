"""Autoguidance of two EDM2 networks, with REG inside an interval, beside the loop written out.

A larger network is guided away from a smaller one (Karras et al. 2024, arXiv 2406.02507): with the
same labels, or without any, as the published classifier-free presets are. Networks, denoisers,
grid, Heun's method, Jacobian products and the interval are said again here, in plain torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import pytest
import torch
from edm2_cases import plain, small
from torch import Tensor

import reg_engine
from reg_engine import BadModel, Denoiser, Guidance, Interval
from reg_engine.models import EDM2
from reg_engine.rectifiers import JVP
from reg_engine.schedules import EDM

STEPS, SCALE, LO, HI = 7, 2.1, 0.05, 20.0
LABELS = torch.tensor([3, 0])
GUIDES = {"same labels": 6, "no labels": 0}
Function = Callable[[Tensor], Tensor]


def networks(guide: int) -> tuple[EDM2, EDM2]:
    """Like S and XS: three halves as wide."""
    net = small(seed=0, channels=12, image_channels=2)
    return net, small(seed=1, image_channels=2, num_labels=guide)


def denoiser(net: EDM2) -> Denoiser:
    labels = net.num_labels
    null = {"null_cond": labels - 1, "num_classes": labels - 1} if labels else {}
    return Denoiser(net, "edm", EDM(), (2, 8, 8), **null)  # type: ignore[arg-type]


def denoised(net: EDM2, x: Tensor, sigma: float) -> Tensor:
    c_skip, c_out = 0.25 / (sigma**2 + 0.25), 0.5 * sigma / math.hypot(sigma, 0.5)
    c_noise = torch.full((len(x),), math.log(sigma) / 4, dtype=x.dtype)
    return c_skip * x + c_out * plain(net, x / math.hypot(sigma, 0.5), c_noise, LABELS)


def transposed(function: Function, x: Tensor, vector: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad((function(x) * vector).sum(), x)[0]


def forward(function: Function, x: Tensor, vector: Tensor) -> Tensor:
    """J v as the derivative of J^T u by u: reverse mode twice."""
    x, u = x.detach().requires_grad_(), torch.zeros_like(x).requires_grad_()
    (back,) = torch.autograd.grad(function(x), x, u, create_graph=True)
    return torch.autograd.grad(back, u, vector)[0]


def rectified(
    name: str, function: Function, x: Tensor, delta: Tensor, lag: Tensor | None
) -> Tensor:
    if name == "none":
        return delta
    if name == "paper":
        return transposed(function, x, torch.ones_like(x)) * delta
    if name == "vjp":
        return transposed(function, x, delta)
    if name == "jvp along delta" or lag is None:
        return forward(function, x, delta)
    k_lag = forward(function, x, lag)

    def inner(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum((1, 2, 3), keepdim=True)

    a, r = inner(delta, lag) / inner(lag, lag), inner(k_lag, lag) / inner(lag, lag)
    return a * k_lag + r * (delta - a * lag)


def drawn_noise() -> Tensor:
    return torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(2)).double()


@cache
def written_out(name: str, guide: str) -> tuple[Tensor, int]:
    """(samples, guided evaluations)."""
    net, worse = networks(GUIDES[guide])
    ends = 80 ** (1 / 7), 0.002 ** (1 / 7)
    sigmas = [(ends[0] + k / (STEPS - 1) * (ends[1] - ends[0])) ** 7 for k in range(STEPS)]
    lag: Tensor | None = None
    guided = 0

    def guide(x: Tensor, sigma: float) -> Tensor:
        nonlocal lag, guided
        cond = denoised(net, x, sigma)
        if not LO <= sigma <= HI:
            return cond
        delta = cond - denoised(worse, x, sigma)
        term = rectified(name, lambda v: denoised(net, v, sigma), x, delta, lag)
        lag, guided = delta, guided + 1
        return cond + (SCALE - 1) * term

    x = sigmas[0] * drawn_noise()
    for now, then in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        slope = (x - guide(x, now)) / now
        end = x + (then - now) * slope
        if then:
            end = x + (then - now) * (slope + (end - guide(end, then)) / then) / 2
        x = end.detach()
    return x, guided


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("name", ["none", "paper", "vjp", "jvp", "jvp along delta"])
def test_the_engine_is_the_loop_written_out(name: str, guide: str) -> None:
    net, worse = networks(GUIDES[guide])
    wanted, guided = written_out(name, guide)
    rectify = {"none": None, "jvp along delta": JVP(along="delta")}.get(name, name)
    weight = Interval(SCALE, LO, HI)
    out = reg_engine.sample(
        denoiser(net),
        LABELS,
        guidance=Guidance(weight, BadModel(denoiser(worse)), rectify),
        noise=drawn_noise(),
        steps=STEPS,
        solver="heun",
        dtype=torch.float64,
        progress=False,
    )
    assert out.stats.modes == {
        "cond": 2 * STEPS - 1 - guided,
        "cfg" if name == "none" else "reg": guided,
    }
    assert 0 < guided < 2 * STEPS - 1 and out.stats.fallbacks == {}
    assert wanted.std() > 0.1
    torch.testing.assert_close(out.samples, wanted, rtol=1e-8, atol=1e-9)


def test_rectifying_and_the_guide_matter() -> None:
    """The five names are five loops: none of them stands for another."""
    names = ("none", "paper", "vjp", "jvp", "jvp along delta")
    found = [written_out(name, guide)[0] for guide in GUIDES for name in names]
    for k, one in enumerate(found):
        assert all(float((one - other).norm() / one.norm()) > 1e-3 for other in found[:k])
