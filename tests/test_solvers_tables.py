"""What a row may keep a history of: three quantities, and nothing between them."""

from __future__ import annotations

import dataclasses

import pytest

from reg_engine.errors import InputError
from reg_engine.schedules import EDM, Flow, Schedule, VPLinear
from reg_engine.solvers import Row, Table, table

# alpha x_0 + sigma epsilon -> (p, q) of d = p x + q denoised
QUANTITIES = {
    "denoised": lambda alpha, sigma: (0.0, 1.0),
    "epsilon": lambda alpha, sigma: (1 / sigma, -alpha / sigma),
    "velocity": lambda alpha, sigma: (1 / sigma, -alpha / sigma - 1),
}


def rewritten(row: Row, name: str, factor: float = 1.0) -> Row:
    """The same step of a first-order row, said by `factor` times another quantity."""
    p, q = (factor * v for v in QUANTITIES[name](row.alpha, row.sigma))
    b = row.b[0] / q  # b (p x + q denoised) = b_0 denoised + b p x
    return dataclasses.replace(row, p=p, q=q, a=row.a - b * p, b=(b,))


@pytest.mark.parametrize("schedule", [EDM(), VPLinear(), Flow(grid_start=0.9)])
@pytest.mark.parametrize("name", QUANTITIES)
def test_a_step_may_be_said_by_each_quantity_but_not_by_a_multiple(
    name: str, schedule: Schedule
) -> None:
    built = table("euler", schedule, 5)
    rows = tuple(rewritten(row, name) for row in built.rows)
    assert dataclasses.replace(built, rows=rows).rows == rows
    for index in range(len(rows)):
        scaled = rewritten(built.rows[index], name, 2.0)
        wrong = (*rows[:index], scaled, *rows[index + 1 :])
        with pytest.raises(InputError, match=rf"^rows\[{index}\]: p and q give neither"):
            dataclasses.replace(built, rows=wrong)


def test_flow_euler_steps_along_the_velocity() -> None:
    """dx/dt = epsilon - x_0: x_s = x + (s - t) d, with d the velocity."""
    flow = Flow()
    row = table("flow_euler", flow, 4).rows[1]
    p, q = 1 / row.t, -1 / row.t
    mine = dataclasses.replace(row, p=p, q=q, a=1.0, b=(row.s - row.t,))
    assert Table("mine", 1.0, (mine,), row.sigma).rows == (mine,)
