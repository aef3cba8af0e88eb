"""The pieces of the mnist experiment, against closed forms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reg_engine import BadModel, Classifier, Unconditional, load_model
from reg_engine.experiments.draws import METHODS, Point, guidance_of
from reg_engine.experiments.image_runs import Bench, Measured, difference, judge, resamples
from reg_engine.experiments.mnist.claims import difference_numbers, equal_scale, summary, tally
from reg_engine.experiments.mnist.fronts import Front, front_numbers, front_of, matched
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


# Measures.


class Head(nn.Module):
    """A judge whose features are the four pixels and whose logits are twice those."""

    num_features = 4

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 4)
        nn.init.eye_(self.head.weight)
        self.head.weight.data.mul_(2.0)
        nn.init.zeros_(self.head.bias)

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)


JUDGE: Any = Head()


def test_log_odds_are_exact_where_probabilities_are_one() -> None:
    images = torch.tensor([[1.0, -1, -1, -1], [0, 0, 0, 0], [-1, 1, -1, -1]]).reshape(3, 1, 2, 2)
    found = judge(JUDGE, images, torch.tensor([0, 3, 0]))
    # ln p/(1-p) = own logit - logsumexp of the others
    wanted = [2 - (-2 + math.log(3)), -math.log(3), -2 - math.log(math.exp(2) + 2 * math.exp(-2))]
    assert found.odds.tolist() == pytest.approx(wanted, rel=1e-12)
    assert found.chance[1] == pytest.approx(0.25)
    assert found.right.tolist() == [True, False, False]


def test_resamples_keep_the_number_of_each_label() -> None:
    labels = torch.arange(40) % 4
    rows = resamples(labels, 50, torch.Generator().manual_seed(0))
    assert torch.equal(labels[rows], labels.expand(50, -1))
    # With replacement: a share of 1 - (1 - 1/10)^10 of ten is drawn at least once.
    distinct = torch.tensor([len(row.unique()) for row in rows]).double().mean()
    assert float(distinct / 40) == pytest.approx(1 - 0.9**10, abs=0.03)


def test_the_bench_gives_intervals_that_hold_the_truth() -> None:
    """Samples of the real law have a small FID; the shifted ones have their shift squared more."""
    generator = torch.Generator().manual_seed(1)
    real = torch.randint(100, 156, (400, 2, 2), generator=generator, dtype=torch.uint8).numpy()
    labels = torch.arange(200) % 4
    bench = Bench(JUDGE, labels, real, 50, generator)
    cost = {"nfe": 7.0, "backward": 0.0}
    again = torch.from_numpy(real[:200].astype(np.float32) / 127.5 - 1)[:, None]
    same = bench(Point("vanilla", 1), again, cost)
    moved = bench(Point("vanilla", 2), again + 0.3, cost)
    assert same.row["fid"] < 0.01 and same.row["nfe"] == 7.0
    assert moved.row["fid"] - same.row["fid"] == pytest.approx(4 * 0.3**2, rel=0.1)
    apart = difference(moved.fids, same.fids)
    assert abs(apart.value - 0.36) < 0.36 / 10 + apart.error and apart.above
    assert same.row["precision"] > 0.9 > 0.5 > moved.row["precision"]
    blind = Bench(JUDGE, labels, None, 5, generator)(Point("vanilla", 1), again, cost)
    assert "fid" not in blind.row and len(blind.fids) == 0
    assert blind.row["confidence"] == same.row["confidence"]


def measured(scale: float, confidence: float, fid: float, **other: Any) -> Measured:
    noise = torch.tensor([0.0, -0.01, 0.01])
    point = Point(other.pop("method", "vanilla"), scale, **other)
    row = {"method": point.method, "scale": scale, "estimator": point.estimator}
    row |= {"plan": point.plan, "solver": None, "fid": fid, "confidence": confidence}
    return Measured(point, row, fid + noise.double(), confidence + 0 * noise.double())


def test_a_front_is_read_between_its_scales() -> None:
    front = Front([measured(1, 8, 0.4), measured(2, 9, 0.2), measured(3, 10, 0.8)])
    assert front.lowest().tolist() == pytest.approx([0.2, 0.19, 0.21])
    for level, wanted in ((7.0, 0.2), (8.5, 0.2), (9.0, 0.2), (9.5, 0.4), (10.0, 0.8)):
        found = front.fid_at(level)
        assert found is not None and float(found[0]) == pytest.approx(wanted)
    assert front.fid_at(10.1) is None
    # A front that turns back: the surest point is not the last one.
    back = Front([measured(1, 8, 0.4), measured(2, 10, 0.6), measured(3, 9, 0.9)])
    found = back.fid_at(9.0)
    assert found is not None and float(found[0]) == pytest.approx(0.24**0.5)  # ln(FID) is straight


def test_a_difference_knows_its_error() -> None:
    one, other = torch.tensor([0.3, 0.31, 0.29, 0.30]), torch.tensor([0.4, 0.41, 0.39, 0.40])
    paired = difference(one.double(), other.double())
    assert paired.value == pytest.approx(-0.1) and paired.error == pytest.approx(0, abs=1e-7)
    assert paired.below and not paired.above and paired.text == "-0.100 ± 0.000"


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
