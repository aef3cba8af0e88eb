"""Grids of EDM and flow matching, explicit times, and the first state."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from reg_engine.errors import InputError
from reg_engine.schedules import EDM, Flow, Schedule, VPLinear
from reg_engine.schedules.base import spaced
from reg_engine.solvers import table


def test_edm_spacings() -> None:
    grid = EDM(1.0, 16.0, spacing="exponential").grid(5)
    assert grid == pytest.approx([16, 8, 4, 2, 1, 0], rel=1e-14)
    assert EDM(spacing="beta").grid(8)[:-1] == pytest.approx(spaced("beta", 80.0, 0.002, 8))


@pytest.mark.parametrize(
    ("flow", "steps", "expected"),
    [
        (Flow(grid_start=0.8), 4, [0.8, 0.6, 0.4, 0.2, 0]),
        (Flow(grid_end=0.2, extra_step=True), 4, [1, 0.8, 0.6, 0.4, 0]),
        (Flow(highest=0.9), 4, [0.9, 0.75, 0.5, 0.25, 0]),
        # 1 - t = 0, .25, .5, .75 stretched by .9/.75
        (Flow(terminal=0.1), 4, [1, 0.7, 0.4, 0.1, 0]),
        (Flow(grid_end=0.25, spacing="exponential"), 3, [1, 0.5, 0.25, 0]),
        (Flow(math.exp(1.15)), 2, [1, math.exp(1.15) / (math.exp(1.15) + 1), 0]),
    ],
)
def test_flow_grids(flow: Flow, steps: int, expected: list[float]) -> None:
    assert flow.grid(steps) == pytest.approx(expected, rel=1e-12)


def test_terminal_needs_two_times() -> None:
    with pytest.raises(InputError, match="steps"):
        Flow(terminal=0.1).grid(1)


@pytest.mark.parametrize(
    ("kind", "fields", "word"),
    [
        (EDM, {"spacing": "linear"}, "spacing"),
        (Flow, {"spacing": "leading"}, "spacing"),
        (Flow, {"grid_start": 1.5}, "grid_start"),
        (Flow, {"grid_start": 0.3, "grid_end": 0.4}, "grid_end"),
        (Flow, {"terminal": 1.0}, "terminal"),
        (Flow, {"highest": 0.0}, "highest"),
    ],
)
def test_bad_fields_are_named(kind: Any, fields: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        kind(**fields)


@pytest.mark.parametrize("schedule", [VPLinear(times=[900, 300.5, -1]), Flow(times=(0.9, 0.2, 0))])
def test_explicit_times_are_the_grid(schedule: Schedule) -> None:
    assert schedule.times is not None
    assert schedule.grid(2).tolist() == list(schedule.times)
    assert schedule != type(schedule)() and hash(schedule) == hash(type(schedule)())
    with pytest.raises(InputError, match="steps: is 3, and the schedule has the times of 2"):
        schedule.grid(3)
    assert [row.t for row in table("ddim", schedule, 2).rows] == list(schedule.times[:-1])


def test_explicit_times_must_fall() -> None:
    with pytest.raises(InputError, match="times"):
        Flow(times=(0.2, 0.9, 0.0)).grid(2)


def test_a_standard_prior_is_unit_noise() -> None:
    flow = Flow(grid_start=0.9, prior="standard")
    assert flow.prior_scale(0.9) == 1.0 and table("dpmpp_2m", flow, 4).init_scale == 1.0
    with pytest.raises(InputError, match="init_scale"):  # sigma = 80: 1 would not be its noise
        table("euler", EDM(prior="standard"), 4)
    assert np.all(Flow(grid_start=0.9).prior_scale(0.9) == 0.9)
