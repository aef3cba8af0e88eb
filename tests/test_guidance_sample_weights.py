"""Published weights of each sample against their formulas written out, and against diffusers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from nets import flow_point, pair, tiny
from torch import Tensor

import reg_engine
from reg_engine import (
    BetaCurve,
    Engine,
    Gate,
    Guidance,
    InputError,
    Interval,
    Mambo,
    PowerLaw,
    Term,
    oracles,
    schedules,
)
from reg_engine.guidance.weights import weights_of
from reg_engine.networks.point import Point
from reg_engine.solvers import table


def norms(values: Tensor) -> Tensor:
    return values.flatten(1).norm(dim=1)


def guided(point: Point, weight: Any, cond: Tensor, ref: Tensor) -> Tensor:
    """The network's own guided prediction."""
    w = weight.per_sample(point, cond, cond - ref)
    return point.to_prediction(cond + w[:, None, None, None] * (cond - ref))


@pytest.mark.parametrize("alpha", [0.0, 0.4, 8.0])
def test_mambo_is_that_of_diffusers(alpha: float) -> None:
    guiders = pytest.importorskip("diffusers.guiders", reason="diffusers is a test peer")
    p = flow_point()
    cond, ref = pair(p)
    guider = guiders.MagnitudeAwareGuidance(guidance_scale=6.0, alpha=alpha)
    guider.set_state(step=5, num_inference_steps=20, timestep=torch.tensor(500))
    # flat: torch's norm refuses the three dimensions that it would name for an image
    flat = (p.to_prediction(v).flatten(1) for v in (cond, ref))
    wanted = guider.forward(*flat).pred.reshape(cond.shape)
    torch.testing.assert_close(guided(p, Mambo(6.0, alpha), cond, ref), wanted)


def test_mambo_without_a_difference_or_a_reference() -> None:
    p = flow_point()
    cond, _ = pair(p)
    assert torch.equal(Mambo(6.0).per_sample(p, cond, cond - cond), torch.full((4,), 5.0).double())
    nothing = p.from_prediction(torch.zeros_like(cond))
    assert torch.equal(Mambo(6.0).per_sample(p, cond, cond - nothing), torch.zeros(4).double())


@pytest.mark.parametrize("power", [0.0, 0.9, 1.5])
def test_a_power_law_is_its_formula(power: float) -> None:
    p = flow_point()
    cond, ref = pair(p)
    a, s = p.row.alpha, p.row.sigma
    score = {x: (a * v - p.x) / s**2 for x, v in (("c", cond), ("r", ref))}
    sizes = {
        "score": norms(score["c"] - score["r"]),
        "denoised": norms(cond - ref),
        "prediction": norms(p.to_prediction(cond) - p.to_prediction(ref)),
    }
    for of, size in sizes.items():
        w = PowerLaw(0.7, power, of).per_sample(p, cond, cond - ref)
        torch.testing.assert_close(w, 0.7 * size**power)
    different = {float(size[0].round(decimals=6)) for size in sizes.values()}
    assert len(different) == 3
    assert torch.equal(PowerLaw(2.0).per_sample(p, cond, cond - cond), torch.zeros(4).double())


@pytest.mark.parametrize("shape", [(2.0, 2.0), (2.0, 3.0), (1.0, 1.0)])
def test_beta_cfg_is_its_formula(shape: tuple[float, float]) -> None:
    """Every row of a DDIM run, as released: eps = eps_u + scale B(i/(N-1)) diff / |diff|^gamma."""
    stats = pytest.importorskip("scipy.stats")
    mixture, schedule, gamma = oracles.two_class_2d(), schedules.VPLinear(), 0.7
    weight = BetaCurve(3.0, *shape, gamma)
    engine = Engine(
        mixture.denoiser(prediction="epsilon", schedule=schedule), scale=weight, rectify=None,
        solver="ddim", steps=6, dtype=torch.float64, progress=False,
    )  # fmt: skip
    labels, null = torch.tensor([0, 1, 0]), 2
    for i, step in enumerate(engine.steps(labels)):
        a, s = schedule(step.t)
        eps = [(step.x - a * mixture.denoised(step.x, a, s, y)) / s for y in (labels, null)]
        size = norms(eps[0] - eps[1])[:, None] ** gamma
        mixed = eps[1] + 3.0 * stats.beta.pdf(i / 5, *shape) * (eps[0] - eps[1]) / size
        torch.testing.assert_close(step.guided, (step.x - s * mixed) / a, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", [1.0, 3.0])
def test_a_difference_that_vanishes_stays_finite(dtype: torch.dtype, gamma: float) -> None:
    """The released code divides 0 by 0; in float32 the quotient of tiny numbers must fit."""
    p = replace(flow_point(), own_w=1 + 5.0)
    cond = pair(p)[0].to(dtype)
    p.x = p.x.to(dtype)
    for length in (0.0, 1e-30, 1e-12):
        delta = torch.full_like(cond, length)
        w = BetaCurve(2.0, gamma=gamma).per_sample(p, cond, delta).to(dtype)
        moved = (w[:, None, None, None] + 1) * p.delta_to_prediction(delta)
        assert w.isfinite().all() and moved.isfinite().all()
        assert length or not moved.any()
        if length == 1e-12 and gamma == 1:
            torch.testing.assert_close(norms(moved), torch.full((4,), 5.0).to(dtype))


def test_the_curve_counts_steps_and_not_evaluations() -> None:
    edm = schedules.EDM()
    for solver in ("euler", "heun"):
        rows = table(solver, edm, 5)
        found = dict(zip([r.t for r in rows.rows], weights_of(BetaCurve(2.0), rows), strict=True))
        wanted = [1 + 2 * 6 * p * (1 - p) for p in (0, 0.25, 0.5, 0.75, 1)]
        assert list(found.values()) == pytest.approx(wanted)
    assert weights_of(BetaCurve(2.0), table("euler", edm, 1)) == pytest.approx([1 + 2 * 1.5])


def test_a_curve_among_terms_reads_its_own_number() -> None:
    model, labels = tiny(), torch.tensor([0, 1, 2])
    choices: dict[str, Any] = {"solver": "euler", "steps": 5, "progress": False}
    alone = Guidance(BetaCurve(1.5), rectify=None)
    beside = Guidance(terms=(Term(BetaCurve(1.5), rectify=None), Term(1.0, rectify=None)))
    runs = [reg_engine.sample(model, labels, guidance=g, **choices) for g in (alone, beside)]
    torch.testing.assert_close(runs[0].samples, runs[1].samples, rtol=1e-5, atol=1e-5)


def cosines(point: Point, cond: Tensor, ref: Tensor) -> Tensor:
    c, u = point.to_prediction(cond).flatten(1), point.to_prediction(ref).flatten(1)
    return torch.cosine_similarity(c, u)


def test_a_gate_closes_where_they_agree_and_stays_closed() -> None:
    p = flow_point()
    cond, ref = pair(p)
    near = p.from_prediction(p.to_prediction(cond) + 0.1 * p.to_prediction(ref))
    limit = float(cosines(p, cond, near)[:2].min())
    assert limit > 0.9 and float(cosines(p, cond, ref).max()) < 0.9
    gate = Gate(3.0, 0.9)
    assert gate.per_sample(p, cond, cond - ref).tolist() == [2.0] * 4 and not gate.finished(p)
    mixed = torch.cat([near[:2], ref[2:]])
    assert gate.per_sample(p, cond, cond - mixed).tolist() == [0.0, 0.0, 2.0, 2.0]
    assert not gate.finished(p)
    assert gate.per_sample(p, cond, cond - ref).tolist() == [0.0, 0.0, 2.0, 2.0]
    gate.per_sample(p, cond, cond - near)
    assert gate.finished(p) and not gate.finished(replace(p, memory={}))


def test_equal_to_the_limit_is_closed() -> None:
    p = flow_point()
    cond, _ = pair(p)
    twice = p.from_prediction(2 * p.to_prediction(cond))
    found = Gate(3.0, 1 - 1e-12).per_sample(p, cond, cond - twice)
    assert found.tolist() == [0.0] * 4, "the cosine does not look at lengths"


GATED: dict[str, Any] = {
    "solver": "euler", "steps": 12, "progress": False, "dtype": torch.float64,
}  # fmt: skip


@pytest.mark.parametrize("rectify", [None, "fd_batched"])
def test_a_closed_gate_is_cheaper_and_changes_nothing(
    rectify: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, labels = oracles.two_class_2d().denoiser(), torch.tensor([0, 1, 0, 1])
    gate = Gate(3.0, 0.9)
    choices = {"guidance": Guidance(gate, rectify=rectify), **GATED}
    short = reg_engine.sample(model, labels, **choices)
    alone = torch.cat(
        [reg_engine.sample(model, labels[[k]], seeds=[k], **choices).samples for k in range(4)]
    )
    torch.testing.assert_close(short.samples, alone, rtol=1e-9, atol=1e-9)
    monkeypatch.setattr(Gate, "finished", lambda self, point: False)
    whole = reg_engine.sample(model, labels, **choices)
    torch.testing.assert_close(short.samples, whole.samples, rtol=1e-9, atol=1e-9)
    assert 12 < short.stats.nfe < whole.stats.nfe


def test_a_gate_that_never_closes_is_cfg() -> None:
    model, labels = oracles.two_class_2d().denoiser(), torch.tensor([0, 1])
    runs = [
        reg_engine.sample(model, labels, guidance=Guidance(w, rectify=None), **GATED).samples
        for w in (Gate(3.0, 1.0), Interval(3.0, 0.0, 1e9))
    ]
    torch.testing.assert_close(*runs)


@pytest.mark.parametrize("bad", [{"of": "noise"}, {"power": -1.0}, {"strength": math.nan}])
def test_options_are_checked(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"^{next(iter(bad))}"):
        PowerLaw(**{"strength": 1.0, **bad})
