"""Solvers of one's own: what they give is checked when the table is built."""

from __future__ import annotations

import pytest

from reg_engine import InputError, schedules
from reg_engine.solvers import Solver, table


@pytest.mark.parametrize("built", [[], [1, 2], None, 3.0])
def test_a_solver_of_ones_own_must_give_rows(built: object) -> None:
    solver = Solver("mine", 1.0, False, lambda schedule, times: built)
    with pytest.raises(InputError, match=r"solver: 'mine' gave .* for rows\. Return a list"):
        table(solver, schedules.EDM(), 3)


def test_options_of_a_solver_of_ones_own_are_options() -> None:
    with pytest.raises(InputError, match=r"options: g is 1\.0\. Give Option"):
        Solver("mine", 1.0, False, lambda schedule, times: [], options={"g": 1.0})
