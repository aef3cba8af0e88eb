"""Evaluations of some samples: the exact probe beside forward AD, and estimators that take it."""

from __future__ import annotations

from typing import Any

import forward_ad
import pytest
import torch
from rectifier_cases import SHAPE, Net, point
from torch import Tensor

from reg_engine import Denoiser, EstimatorError, Guidance, InputError, sample, schedules
from reg_engine.guidance.references import BadModel, Unconditional
from reg_engine.rectifiers import Alternate, Lazy, LazyBlend
from reg_engine.rectifiers.partial import evaluated, stacked

EDM = schedules.EDM(sigma_min=0.01, sigma_max=20.0)


def other() -> Denoiser:
    net = Net().double().requires_grad_(False)
    for parameter in net.parameters():
        parameter.mul_(0.8)
    return Denoiser(net, "epsilon", schedules.VPLinear(), SHAPE, null_cond=3, num_classes=3)


@pytest.mark.parametrize("reference", [Unconditional(), BadModel(other())])
@pytest.mark.parametrize("probe", [[], [2], [3, 0], [0, 1, 2, 3]])
@pytest.mark.parametrize("ask", [[], [1], [0, 1, 2, 3]])
def test_some_samples_at_once(reference: Any, probe: list[int], ask: list[int]) -> None:
    p = point(batch=4)
    p.reference = reference
    rows, asked = torch.tensor(probe, dtype=torch.long), torch.tensor(ask, dtype=torch.long)
    tangent = torch.randn(len(probe), *SHAPE, dtype=torch.float64)
    whole = torch.zeros_like(p.x).index_copy(0, rows, tangent)
    wanted = p.alpha * forward_ad.jvp(p.cond_at, p.x, whole)[1][rows]
    before = p.counter.forward
    cond, ref, product = stacked(p, asked, rows, tangent)
    spent = p.counter.forward - before
    moved = p.x[rows]
    plain = evaluated(p, asked, rows, moved, False)
    assert p.counter.forward - before == 2 * spent, "as many evaluations as with a difference"
    for one, two in ((cond, plain[0]), (ref, plain[1]), (product, wanted)):
        torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-13)


def drawn(rectify: Any, net: Net, reference: Any = None) -> Any:
    def call(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return net(x, t.to(x.dtype), cond)

    denoiser = Denoiser(call, "edm", EDM, SHAPE, null_cond=3, num_classes=3)
    guidance = Guidance(3.0, reference or Unconditional(), rectify)
    options: dict[str, Any] = {"solver": "dpmpp_2m", "steps": 12, "dtype": torch.float64}
    return sample(denoiser, [0, 1, 2, 0], guidance=guidance, **options)


@pytest.mark.parametrize("kind", [Lazy, Alternate])
def test_the_exact_probe_gives_what_small_differences_give(kind: type) -> None:
    net = Net().double().requires_grad_(False)
    exact, near = drawn(kind(probe="jvp"), net), drawn(kind(rho=1e-6), net)
    torch.testing.assert_close(exact.samples, near.samples, rtol=1e-5, atol=1e-5)
    # at the first row delta is known after cond, which the exact product has once more
    assert exact.stats.nfe == near.stats.nfe + 1 and exact.stats.estimator == kind.name


def test_in_bfloat16_it_is_nearer_than_a_difference() -> None:
    """To the samples of float64, whose network is the same but for its rounding."""
    net = Net().double().requires_grad_(False)
    net.to(torch.bfloat16).double()  # weights that both can hold
    whole = drawn(Lazy(probe="jvp", tolerance=0.0, reference=0.0), net).samples
    errors = []
    for probe in ("jvp", "difference"):
        half = Net().to(torch.bfloat16).requires_grad_(False)
        half.load_state_dict(net.state_dict())
        rectify = Lazy(probe=probe, tolerance=0.0, reference=0.0)
        errors.append(float((drawn(rectify, half).samples - whole).norm() / whole.norm()))
    assert errors[0] < 0.7 * errors[1] and errors[0] < 0.05


def test_what_cannot_be_is_told() -> None:
    with pytest.raises(InputError, match="'jvp' does not serve 'lazy_blend'"):
        LazyBlend(probe="jvp")
    with pytest.raises(InputError, match="unknown name 'fd'"):
        Lazy(probe="fd")

    class Mixing(Net):
        def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            return super().forward(x - x.mean(0), t, cond)

    net = Mixing().double().requires_grad_(False)
    with pytest.raises(EstimatorError, match="'lazy' cannot.*mean in Mixing works along the batch"):
        drawn(Lazy(probe="jvp"), net)
