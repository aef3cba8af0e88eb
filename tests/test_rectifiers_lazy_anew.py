"""Where nothing that was measured before may be carried: it is measured anew, for those samples."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from rectifier_cases import Net
from torch import Tensor, nn

from reg_engine import ICG, Denoiser, Gibbs, Guidance, sample, schedules
from reg_engine.guidance.references import Classifier, Unconditional
from reg_engine.guidance.sample_weights import BetaCurve
from reg_engine.oracles import energy_distance, two_class_2d
from reg_engine.solvers import table

EDM = schedules.EDM(sigma_min=0.01, sigma_max=20.0)
MEANS = torch.tensor([[1.0, 0.5], [-0.5, -1.0]], dtype=torch.float64)


def drawn(denoiser: Denoiser, guidance: Guidance, cond: Any = 0, **choices: Any) -> Any:
    plain = {"seeds": range(128), "solver": "dpmpp_2m", "steps": 20, "dtype": torch.float64}
    call = {**plain, **choices}
    return sample(denoiser, cond, guidance=guidance, progress=False, check=False, **call)


def apart(a: Any, b: Any) -> float:
    return float((a.samples - b.samples).norm(dim=1).mean())


class Affine(nn.Module):
    """denoised = slope x + mean: K is slope, at every noise level."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return self.slope * x + MEANS[label]


@pytest.mark.parametrize("pair", [("lazy", "fd_batched"), ("alternate", "fd_batched"),
                                  ("lazy_blend", "blend")])  # fmt: skip
@pytest.mark.parametrize("slope", [-0.3, -0.05])
def test_a_negative_quotient_is_no_gaussians(slope: float, pair: tuple[str, str]) -> None:
    """As trained networks have: it is probed at every row, and grows nowhere."""
    net = Denoiser(Affine(slope), "sample", EDM, (2,), null_cond=1, num_classes=2)
    lazy, full = (drawn(net, Guidance(3.0, rectify=r), seeds=range(3)) for r in pair)
    torch.testing.assert_close(lazy.samples, full.samples, rtol=1e-7, atol=1e-7)
    assert lazy.stats.nfe == (61 if pair[1] == "blend" else 41)  # ref once more, at the first row


@pytest.mark.parametrize(("rectify", "near"), [("lazy", 0.02), ("alternate", 0.03)])
def test_a_noise_level_that_rises_is_looked_at_anew(rectify: str, near: float) -> None:
    """In Gibbs rounds, against K delta itself; without guidance in them it is 0.25 away."""
    net, choices = two_class_2d().denoiser(schedule=EDM), {"refine": Gibbs(1.0, 3)}
    exact = drawn(net, Guidance(3.0, rectify="fd"), **choices)
    lazy = drawn(net, Guidance(3.0, rectify=rectify), **choices)
    assert apart(lazy, exact) < near and lazy.stats.nfe < 0.7 * exact.stats.nfe


def logits(x: Tensor, t: Tensor) -> Tensor:
    return 2 * x * x.new_tensor([1.0, -1.0]) / (1 + t[:, None].square())


@pytest.mark.parametrize("start", [0.5, 2.0])
@pytest.mark.parametrize(("rectify", "near"), [("lazy", 0.01), ("alternate", 0.05)])
def test_a_difference_that_was_nothing_begins(rectify: str, near: float, start: float) -> None:
    """A classifier that is asked from a noise level on; above it a row costs one evaluation."""
    net = two_class_2d().denoiser(schedule=EDM)
    lazy, full = (
        drawn(net, Guidance(3.0, Classifier(logits, start=start), r))
        for r in (rectify, "fd_batched")
    )
    assert apart(lazy, full) < near and lazy.stats.nfe < 0.75 * full.stats.nfe
    rows = table("dpmpp_2m", net.schedule, 20).rows
    above = [row.t for row in rows if row.noise_level > start]
    options = {"steps": None, "solver_options": {"times": [*above, start]}}
    short = drawn(net, Guidance(3.0, Classifier(logits, start=start), rectify), **options)
    assert short.stats.nfe == len(above) + 1  # a probe at the first row


def test_a_reference_that_is_drawn_anew_is_asked_every_time() -> None:
    """ICG: as often guided as fd_batched (means of 512 samples; carried, it is 0.3 away)."""
    net = two_class_2d().denoiser(schedule=EDM)
    lazy, full = (
        drawn(net, Guidance(3.0, ICG(), r), seeds=range(512)) for r in ("alternate", "fd_batched")
    )
    assert energy_distance(lazy.samples, full.samples) < 0.005 and lazy.stats.nfe > 40
    once = drawn(net, Guidance(3.0, ICG(redraw=False), "alternate"))
    assert once.stats.nfe < 40


def test_a_weight_that_grows_as_delta_vanishes_is_heeded() -> None:
    """beta-CFG: w |delta| stays large where delta is small."""
    net = two_class_2d().denoiser(schedule=EDM)
    lazy, full = (
        drawn(net, Guidance(BetaCurve(2.0), Unconditional(), r)) for r in ("lazy", "fd_batched")
    )
    assert apart(lazy, full) < 0.1 < 3 * apart(drawn(net, Guidance(1.0)), full)
    assert lazy.stats.nfe < 0.75 * full.stats.nfe


@pytest.mark.parametrize("rectify", ["lazy", "alternate", "lazy_blend"])
def test_a_sample_without_a_difference_is_never_probed(rectify: str) -> None:
    """Under the null label cond is the reference: it is asked, and the others pay nothing."""
    dense = Denoiser(
        Net().double().requires_grad_(False), "edm", EDM, (2, 3), null_cond=3, num_classes=3
    )
    run = partial(drawn, dense, Guidance(3.0, rectify=rectify))
    null, own = run(3, seeds=[5]), run(1, seeds=[6])
    assert null.stats.nfe == 2 * 20 + (2 if rectify == "lazy_blend" else 1)
    both = run([3, 1], seeds=[5, 6])
    torch.testing.assert_close(both.samples, torch.cat([null.samples, own.samples]))
    assert both.stats.nfe == (null.stats.nfe + own.stats.nfe) / 2
