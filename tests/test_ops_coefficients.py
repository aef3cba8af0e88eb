"""The device table against the rows it is made of."""

from __future__ import annotations

import math

import pytest
import torch

from reg_engine import schedules
from reg_engine.ops.coefficients import COLUMNS, FIRST_B, coefficient_table
from reg_engine.solvers import SOLVERS, table


def column(name: str) -> int:
    return COLUMNS.index(name)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_every_number_is_in_its_column(solver: str) -> None:
    schedule = schedules.Flow() if solver.startswith("flow") else schedules.EDM(0.01, 20.0, 7.0)
    if solver in ("ddpm", "ddim", "pndm"):
        schedule = schedules.VPLinear()
    rows = table(solver, schedule, 6).rows
    weights = [float(i) for i in range(len(rows))]
    found = coefficient_table(rows, weights, dtype=torch.float64)
    longest = max(len(row.b) for row in rows)
    assert found.shape == (len(rows), FIRST_B + longest)
    for row, w, line in zip(rows, weights, found.tolist(), strict=True):
        for name in ("p", "q", "a", "c", "alpha", "sigma"):
            assert line[column(name)] == getattr(row, name)
        assert line[column("w")] == w and line[column("time")] == row.t
        assert (line[column("limit")], line[column("keep")]) == (math.inf, 0.0)
        assert (line[column("c_in")], line[column("skip")], line[column("out")]) == (1.0, 0.0, 1.0)
        assert tuple(line[FIRST_B : FIRST_B + len(row.b)]) == row.b
        assert not any(line[FIRST_B + len(row.b) :])


def test_predictions_and_dtype() -> None:
    rows = table("heun", schedules.EDM(0.01, 20.0, 7.0), 3).rows
    numbers = [(0.1 * i, 0.2, 0.3, 0.4) for i in range(len(rows))]
    found = coefficient_table(rows, [1.0] * len(rows), predictions=numbers)
    assert found.dtype == torch.float32
    for i, line in enumerate(found):
        wanted = torch.tensor(numbers[i])
        assert torch.equal(line[[column(n) for n in ("c_in", "skip", "out", "time")]], wanted)


def test_every_row_has_its_own_clip() -> None:
    rows = table("ddim", schedules.VPLinear(), 3).rows
    clips = [(0.5, 0.1), (math.inf, 0.0), (2.0, -0.3)]
    found = coefficient_table(rows, [1.0] * 3, clips=clips, dtype=torch.float64)
    assert found[:, [column("limit"), column("keep")]].tolist() == [list(clip) for clip in clips]
