"""The loop that a table defines, in plain arithmetic: what solvers are tested with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from reg_engine.solvers import Row, Table


def run(
    table: Table, denoise: Callable[[Any, Row], Any], x: Any, noises: Iterable[Any] = ()
) -> Any:
    """The final state from the first state `x`; `noises` gives one draw per row that adds noise."""
    history: list[Any] = []
    draws: Iterator[Any] = iter(noises)
    for row in table.rows:
        history.insert(0, row.p * x + row.q * denoise(x, row))
        del history[table.history :]
        x = row.a * x
        for coefficient, slope in zip(row.b, history, strict=False):
            x = x + coefficient * slope
        if row.c:
            x = x + row.c * next(draws)
    return x
