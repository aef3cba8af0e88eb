"""The pieces of the mnist experiment, against closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from reg_engine import BadModel, Classifier, Unconditional, load_model
from reg_engine.evaluation.fronts import Measured
from reg_engine.experiments.draws import METHODS, Point, guidance_of
from reg_engine.experiments.mnist.claims import difference_numbers, equal_scale, summary, tally
from reg_engine.experiments.mnist.fronts import front_numbers, front_of, matched
from reg_engine.experiments.mnist.page import level_rows
from reg_engine.experiments.mnist.sampling import CHEAP, TIMES, full_grid, pool_grid, quick_grid
from reg_engine.guidance.weights import weights_of
from reg_engine.models import load_classifier
from reg_engine.solvers import table

# The grid.


@pytest.mark.parametrize("grid", [full_grid(False), full_grid(True), quick_grid(), pool_grid()])
def test_points_have_names_of_their_own(grid: list[Point]) -> None:
    assert len({p.name for p in grid}) == len(grid)


@pytest.mark.parametrize("dense", [False, True])
def test_the_full_grid_has_both_fronts_of_every_method(dense: bool) -> None:
    grid = full_grid(dense)
    for method in METHODS:
        front = [p for p in grid if (p.method, p.plan, p.solver) == (method, "full", None)]
        plain = {p.scale for p in front if p.estimator == "none"}
        reg = {p.scale for p in front if p.estimator == CHEAP}
        # The same scales, but for some that only show where a front bends.
        shared = plain & reg
        assert len(shared) >= 3 and len((plain | reg) - shared) <= 5
    assert {p.estimator for p in grid} >= {"paper", "vjp", "jvp", "fd", CHEAP, "diagonal"}
    pooled = {(p.method, p.scale) for p in pool_grid()} - {("vanilla", 1.0)}
    assert not pooled & {(p.method, p.scale) for p in grid}  # postprocessing meets new scales


def test_weights_and_references_are_those_of_the_methods() -> None:
    model = load_model("mnist")
    rows = table("dpmpp_2m", model.schedule, len(TIMES) - 1, times=list(TIMES))
    weights = {}
    for method in METHODS:
        guidance = guidance_of(Point(method, 3.0, CHEAP), model, load_classifier("mnist"))
        weights[method] = weights_of(guidance.weight, rows)  # type: ignore[arg-type]
        kind = {"autoguidance": BadModel, "cg": Classifier, "cg-linear": Classifier}
        assert isinstance(guidance.reference, kind.get(method, Unconditional))
        assert guidance.rectify == CHEAP
    assert weights["vanilla"] == weights["autoguidance"] == (2.0,) * 10
    assert weights["cg"] == weights["cg-linear"] == (3.0,) * 10  # w itself: Eq. 9
    assert weights["interval"] == (0, 0, 0, 0, 2, 2, 2, 2, 2, 0)
    assert weights["linear"][0] == 2.0 and weights["linear"][4] == pytest.approx(
        2 * (2.6 - 0.1) / 79.9
    )
    assert weights["cosine"][4] == pytest.approx(1 - math.cos(math.pi * (1 - 2.6 / 80)))
    assert guidance_of(Point("vanilla", 3.0)).rectify is None


def measured(scale: float, confidence: float, fid: float, **other: Any) -> Measured:
    noise = torch.tensor([0.0, -0.01, 0.01])
    point = Point(other.pop("method", "vanilla"), scale, **other)
    row = {"method": point.method, "scale": scale, "estimator": point.estimator}
    row |= {"plan": point.plan, "solver": None, "fid": fid, "confidence": confidence}
    return Measured(point, row, fid + noise.double(), confidence + 0 * noise.double())


def test_fronts_are_of_their_method_and_begin_unguided() -> None:
    rows = [
        measured(1, 8, 0.4),
        measured(4, 9, 0.6),
        measured(4, 9, 0.5, estimator=CHEAP),
        measured(4, 9, 0.5, estimator="vjp"),
        measured(4, 9, 0.5, estimator=CHEAP, plan="calibrated"),
        measured(2, 7, 3.0, method="cg"),
    ]
    plain, reg = front_of(rows, "vanilla", False), front_of(rows, "vanilla", True)
    assert plain is not None and [m.point.scale for m in plain.points] == [1, 4]
    assert reg is not None and [m.point.estimator for m in reg.points] == ["none", CHEAP]
    assert front_of(rows, "cg", False) is None  # one point is no front
    assert front_of(rows, "interval", True) is None


# What is said.


def far(method: str, estimator: str, points: dict[float, tuple[float, float]]) -> list[Measured]:
    return [
        measured(scale, confidence, fid, method=method, estimator=estimator)
        for scale, (confidence, fid) in points.items()
    ]


def numbers_of(measured: list[Measured]) -> dict[str, Any]:
    return {
        "points": [m.row for m in measured],
        "fronts": front_numbers(measured),
        "differences": difference_numbers(measured),
        "estimators": [],
        "claims": {"one": {"holds": True}, "other": {"holds": False}},
    }


def test_a_method_that_only_damps_is_said_to_follow_the_same_front() -> None:
    """REG at scale s lies exactly where CFG lies at a smaller scale."""
    plain = {1.0: (8.0, 0.2), 1.5: (8.6, 0.3), 2.0: (9.0, 0.5), 4.0: (9.6, 1.1)}
    damped = {1.5: (8.3, 0.06**0.5), 2.0: (8.6, 0.3), 4.0: (9.0, 0.5)}
    rows = far("vanilla", "none", plain) + far("vanilla", CHEAP, damped)
    assert {s: round(d.value, 6) for s, d in equal_scale(rows).items()} == {
        1.5: round(0.06**0.5 - 0.3, 6),
        2.0: -0.2,
        4.0: -0.6,
    }
    found = matched(rows, "vanilla")
    assert list(found) == [8.3, 8.6, 8.9]  # 9.2 and 9.4 are beyond REG's front
    assert [d.value for d in found.values()] == pytest.approx([0] * 3, abs=1e-12)
    assert tally(found) == "0 / 3 / 0"
    text = summary(numbers_of(rows))
    assert "at 3 of 3 scales" in text and "CFG 0 / 3 / 0" in text and "one front" in text
    assert "at scale 4, 0.500 against 1.100" in text and "1 of 2 claims hold" in text


def test_each_data_set_has_levels_of_its_own() -> None:
    """Fashion-MNIST's judge is less sure, of real images too."""
    rows = far("vanilla", "none", {1.0: (4.8, 0.4), 3.0: (7.7, 1.2)})
    rows += far("vanilla", CHEAP, {3.0: (7.3, 0.8)})
    assert list(matched(rows, "vanilla")) == []
    assert list(matched(rows, "vanilla", data_set="fashion")) == [5.7, 6.2, 6.7, 7.2]
    table = front_numbers(rows, "fashion")["vanilla"]["levels"]
    assert list(table) == ["5.7", "6.2", "6.7", "7.2", "7.7"] and table["7.7"][1] is None
    assert set(difference_numbers(rows, "fashion")["equal_confidence_vanilla"]) == {
        "5.7",
        "6.2",
        "6.7",
        "7.2",
    }


def test_a_method_that_repairs_is_said_to_be_lower() -> None:
    plain = {1.0: (8.0, 0.2), 2.0: (9.0, 0.5), 4.0: (9.6, 1.1)}
    better = {2.0: (9.0, 0.3), 4.0: (9.6, 0.6)}
    rows = far("vanilla", "none", plain) + far("vanilla", CHEAP, better)
    found = matched(rows, "vanilla")
    wanted = 0.3 * 2 ** (1 / 3) - 0.5 * 2.2 ** (1 / 3)  # a third of the way, ln(FID) straight
    assert found[9.2].value == pytest.approx(wanted) and tally(found) == "5 / 0 / 0"
    assert "one front" not in summary(numbers_of(rows))
    lines = level_rows(numbers_of(rows), ["vanilla"])
    assert [line[0] for line in lines] == ["CFG", "CFG + REG"]
    assert lines[1][4].startswith("0.378 (-0.272 ± ")
