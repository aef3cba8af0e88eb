"""What every row reads: modes by weight and plan, and an estimator that is settled once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nets import tiny

from reg_engine import TCFG, Engine, Guidance, Guide, Interval, Plan, Rescale
from reg_engine.loop.stats import Stats

LABELS = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("guidance", "modes"),
    [
        ({"weight": 3.0}, {"reg"}),
        ({"weight": 3.0, "rectify": None}, {"cfg"}),
        ({"weight": 1.0}, {"cond"}),
        ({"weight": 0.0}, {"ref"}),
        ({"weight": 0.0, "adjust": Rescale()}, {"cfg"}),
        ({"weight": 0.0, "direction": TCFG()}, {"cfg"}),
        ({"weight": Interval(3.0, 0.1, 5.0)}, {"reg", "cond"}),
    ],
)
def test_modes_follow_the_weight(guidance: dict[str, Any], modes: set[str]) -> None:
    one = Engine(tiny(), guidance=Guidance(**{"rectify": "fd", **guidance}), steps=6)
    assert set(one.modes) == modes


def test_modes_follow_the_plan() -> None:
    one = Engine(tiny(), plan=Plan((0.1, 5.0), ("cfg", "reg", "cond")), solver="euler", steps=6)
    expected = [
        "cfg" if row.noise_level < 0.1 else "reg" if row.noise_level < 5 else "cond"
        for row in one.table.rows
    ]
    assert list(one.modes) == expected and set(expected) == {"cfg", "reg", "cond"}


def test_other_rows_keep_the_choices_and_the_estimator() -> None:
    one = Engine(tiny(), scale=3.0, solver="euler", steps=4, progress=False)
    other = Engine(tiny(), scale=3.0, solver="ddim", steps=2)
    weights = (0.0, 2.0)
    moved = one.on(table=other.table, weights=weights)
    assert (moved.table, moved.modes) == (other.table, ("cond", "reg"))
    assert one.modes == ("reg",) * 4 and moved.denoiser is one.denoiser
    assert moved.chosen == one.chosen == ("none", "not settled yet")
    stats = Stats()
    one.prepare((LABELS, None), 2, stats)
    assert stats.checks > 0 and moved.chosen == one.chosen and moved.chosen[0] == "alternate"
    moved.prepare((LABELS, None), 2, again := Stats())
    assert again.checks == 0


def test_a_guide_settles_its_estimator_once() -> None:
    guide = Guide(tiny(), LABELS, scale=3.0)
    x = torch.ones(2, *guide.denoiser.sample_shape)
    guide(x, 1.0)
    checks = guide.stats.checks
    guide(x, 0.5)
    assert guide.stats.checks == checks > 0
