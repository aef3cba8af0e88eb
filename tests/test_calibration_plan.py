"""Calibration keeps its word, on the samples it measured and on others."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from nets import tiny

import reg_engine
from reg_engine import (
    BadModel,
    Engine,
    Guidance,
    InputError,
    Linear,
    Plan,
    Term,
    Unconditional,
    oracles,
    schedules,
)
from reg_engine.calibration.plan import _Recorder
from reg_engine.loop.stats import Output
from reg_engine.rectifiers import FD, VJP, DiagonalBatched, name_of


@pytest.mark.parametrize("tolerance", [0.003, 0.03])
def test_calibrated_plan_stays_within_the_tolerance_on_new_seeds(tolerance: float) -> None:
    model = oracles.two_class_2d().denoiser(schedule=schedules.EDM(sigma_min=0.01, sigma_max=20.0))
    choices = {"scale": 3.0, "rectify": "vjp", "steps": 18, "progress": False}
    labels = torch.arange(64) % 2
    plan = Plan.calibrate(model, labels, tolerance=tolerance, seeds=range(64), **choices)
    report = plan.report
    assert report["measured_deviation"] <= tolerance
    assert report["cost"] < report["cost_full"] == 3 * 35
    assert report["cost_cfg"] == 2 * 35
    full = reg_engine.sample(model, labels, seeds=range(1000, 1064), **choices)
    planned = reg_engine.sample(model, labels, seeds=range(1000, 1064), plan=plan, **choices)
    deviation = (planned.samples - full.samples).norm() / full.samples.norm()
    # Other samples than those it was measured on: the same size, not the same number.
    assert deviation <= 2 * tolerance
    assert (
        sum({"cond": 1, "cfg": 2, "reg": 3}[m] * n for m, n in planned.stats.modes.items())
        == (report["cost"])
    )
    json.dumps(dict(report))


def test_looser_tolerance_never_costs_more() -> None:
    model = oracles.two_class_2d().denoiser(schedule=schedules.EDM(sigma_min=0.01, sigma_max=20.0))
    costs = [
        Plan.calibrate(
            model,
            torch.arange(16) % 2,
            tolerance=v,
            seeds=range(16),
            scale=3.0,
            rectify="vjp",
            steps=12,
            progress=False,
        ).report["cost"]
        for v in (0.001, 0.01, 0.1)
    ]
    assert costs[0] >= costs[1] >= costs[2] and costs[0] > costs[2]


@pytest.mark.parametrize(
    "changes",
    [
        {"tolerance": 0.0},
        {"tolerance": 2.0},
        {"plan": Plan.full()},
        {"rectify": None},
        {"scale": 1.0},
    ],
)
def test_calibrate_refuses(changes: dict[str, object]) -> None:
    choices = {"scale": 2.0, "steps": 3, "progress": False, **changes}
    with pytest.raises(InputError):
        Plan.calibrate(tiny(), [0, 1], **choices)


def test_the_deviation_is_measured_with_the_estimator_that_was_settled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """|planned - full| / |full| of the seeds asked for; `auto` is not decided once a candidate."""
    candidates: list[Engine] = []

    class Candidate(Engine):
        def sample(self, *args: Any, **choices: Any) -> Output:
            candidates.append(self)
            return super().sample(*args, **choices)

    monkeypatch.setattr("reg_engine.calibration.plan.Engine", Candidate)
    choices = {"scale": 3.0, "solver": "euler", "steps": 4, "progress": False}
    model, labels, seeds = tiny(), [0, 1, 2], [4, 5, 6]
    plan = Plan.calibrate(model, labels, tolerance=0.2, seeds=seeds, **choices)
    report = plan.report
    assert {name_of(c.guidance.rectify) for c in candidates} == {report["estimator"]}
    assert all(isinstance(c.guidance.rectify, VJP) for c in candidates), "what auto took"
    choices |= {"rectify": report["estimator"]}
    full = Engine(model, **choices).sample(labels, seeds).samples
    planned = Engine(model, plan=plan, **choices).sample(labels, seeds).samples
    deviation = float((planned - full).norm() / full.norm())
    assert 0 < deviation == pytest.approx(report["measured_deviation"], rel=1e-6)


def test_displacements_are_where_one_step_would_land() -> None:
    """x_s/alpha_s of each row under full REG, against the same row done as `cfg` or `cond`."""
    seen: list[tuple[torch.Tensor, ...]] = []

    class Spy:
        name = "spy"

        def __call__(self, point, direction):  # type: ignore[no-untyped-def]
            out = FD()(point, direction)
            seen.append((point.x.clone(), *out))
            return out

    recorder = _Recorder(Spy())
    guidance = Guidance(Linear(4.0, 2.0), rectify=recorder)
    vp = schedules.VPLinear()
    engine = Engine(
        tiny("epsilon", vp), guidance=guidance, solver="ddim", steps=5, batch_size=2,
        dtype=torch.float64, progress=False,
    )  # fmt: skip
    engine.sample([0, 1, 2, 0], range(4))
    rows = engine.table.rows
    assert len(seen) == 2 * len(rows)
    for index, (row, found) in enumerate(zip(rows, recorder.displacements(engine), strict=True)):
        parts = zip(seen[index], seen[index + len(rows)], strict=True)  # both batches
        x, cond, rectified, delta = (torch.cat(pair) for pair in parts)

        def landing(guided, x=x, row=row):  # type: ignore[no-untyped-def]
            return (row.a * x + row.b[0] * (row.p * x + row.q * guided)) / row.alpha_s

        w = engine.weights[index]
        full = landing(cond + w * rectified)
        for mode, guided in (("cond", cond), ("cfg", cond + w * delta)):
            away = (landing(guided) - full).flatten(1).norm(dim=1).square().mean().sqrt()
            assert found[mode] == pytest.approx(float(away), rel=1e-9), (index, mode)


def test_the_report_states_what_runs_cost() -> None:
    """Of several terms too, and of an estimator that evaluates more than three times."""
    terms = (
        Term(3.0, rectify="vjp"),
        Term(2.0, BadModel(tiny()), None),
        Term(1.5, Unconditional(1), None),
    )
    choices = {"solver": "euler", "steps": 4, "progress": False}
    for guidance, full, cfg in (
        (Guidance(terms=terms), 20, 16),
        (Guidance(3.0, rectify="vjp"), 12, 8),
        (Guidance(3.0, rectify=DiagonalBatched(probes=3)), 20, 8),
    ):
        report = Plan.calibrate(tiny(), [0, 1], guidance=guidance, **choices).report
        stats = Engine(tiny(), guidance=guidance, **choices).sample([0, 1]).stats
        assert report["cost_full"] == stats.nfe + stats.backward == full
        assert report["cost_cfg"] == cfg and report["cost"] <= full
