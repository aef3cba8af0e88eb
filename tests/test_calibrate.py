"""Calibration keeps its word, on the samples it measured and on others."""

from __future__ import annotations

import json

import pytest
import torch
from nets import tiny

import reg_engine
from reg_engine import InputError, Plan, oracles, schedules


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
