"""Who wins and who does not, from the numbers of the experiment."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

__all__ = ["Cell", "apart", "beaten", "cells", "floors", "worse_than"]

ERRORS = 2.0  # standard errors of a difference from which on it counts


class Cell(NamedTuple):
    """One method at one mixture and weight: distance, its standard error, cost, and the floor."""

    mixture: str
    w: float
    method: str
    distance: float
    error: float
    cost: float
    floor: float


def cells(numbers: Mapping[str, Any]) -> Iterator[Cell]:
    """All of them."""
    setting = numbers["setting"]
    root = math.sqrt(setting["seeds"])
    for mixture, found in numbers["mixtures"].items():
        for column, w in enumerate(setting["weights"]):
            for method, result in found["methods"].items():
                value, spread = (float(result[k][column]) for k in ("distance", "deviation"))
                floor = float(found["floor"][column])
                yield Cell(mixture, w, method, value, spread / root, result["cost"], floor)


def apart(near: Cell, far: Cell) -> bool:
    """Whether `near` is nearer by more than chance."""
    return far.distance - near.distance > ERRORS * math.hypot(near.error, far.error)


def beaten(numbers: Mapping[str, Any]) -> dict[str, list[tuple[Cell, Cell]]]:
    """For every method, the cells where one that costs no more is nearer, and the nearest such."""
    found: dict[str, list[tuple[Cell, Cell]]] = {}
    every = [cell for cell in cells(numbers) if cell.method != "golden"]
    for cell in every:
        rivals = [c for c in every if c[:2] == cell[:2] and c.cost <= cell.cost and apart(c, cell)]
        found.setdefault(cell.method, [])
        if rivals:
            found[cell.method].append((cell, min(rivals, key=lambda c: c.distance)))
    return found


def worse_than(numbers: Mapping[str, Any], method: str, other: str) -> list[Cell]:
    """Cells where `method` is further than `other` by more than chance."""
    every = {(c.mixture, c.w, c.method): c for c in cells(numbers)}
    found = [c for c in every.values() if c.method == method]
    return [c for c in found if apart(every[(c.mixture, c.w, other)], c)]


def floors(numbers: Mapping[str, Any], method: str, mixture: str, w: float) -> float:
    """Distance in floors."""
    ((distance, floor),) = (
        (c.distance, c.floor) for c in cells(numbers) if c[:3] == (mixture, w, method)
    )
    return distance / floor
