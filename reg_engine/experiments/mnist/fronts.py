"""Fronts of FID against confidence, and comparisons at matched confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...evaluation.fronts import Difference, Front, Measured, difference
from ..draws import CLASSIFIER_METHODS, METHODS
from .sampling import CHEAP

# Of confidence; MNIST's test images have about 8.3, Fashion-MNIST's 5.7, which classifier guidance
# hardly reaches.
LEVELS = {"mnist": (8.3, 8.6, 8.9, 9.2, 9.4), "fashion": (5.7, 6.2, 6.7, 7.2, 7.7)}
CLASSIFIER_LEVELS = {"mnist": (6.0, 6.5, 7.0, 7.5), "fashion": (4.0, 4.5, 5.0, 5.5)}

Row = Mapping[str, Any]  # a point's numbers, see Measured


def levels(method: str, data_set: str) -> tuple[float, ...]:
    """The levels of confidence at which a method's fronts are compared."""
    return (CLASSIFIER_LEVELS if method in CLASSIFIER_METHODS else LEVELS)[data_set]


def plain(row: Row) -> bool:
    """Whether a point may stand on a front: full plan, the solver of all points, the cheap REG."""
    return row["plan"] == "full" and not row["solver"] and row["estimator"] in ("none", CHEAP)


def on_front(rows: Sequence[Row], method: str, rectified: bool) -> list[Row]:
    """A method's points, without REG or with it, by scale; [] if there are no two.

    The unguided conditional model (scale 1) is the first point of every front but a classifier's.
    """
    found = [row for row in rows if row["method"] == method and plain(row)]
    found = [row for row in found if (row["estimator"] != "none") is rectified]
    if method not in CLASSIFIER_METHODS and 1 not in {row["scale"] for row in found}:
        found += [row for row in rows if (row["method"], row["scale"]) == ("vanilla", 1)]
    return sorted(found, key=lambda row: float(row["scale"])) if len(found) > 1 else []


def front_of(measured: Sequence[Measured], method: str, rectified: bool) -> Front | None:
    """A method's front; None if it has no two points (see on_front)."""
    rows = on_front([m.row for m in measured], method, rectified)
    return Front([next(m for m in measured if m.row is row) for row in rows]) if rows else None


def matched(
    measured: Sequence[Measured],
    method: str,
    other: str = "",
    rectified: tuple[bool, bool] = (True, False),
    data_set: str = "mnist",
) -> dict[float, Difference]:
    """FID of one front minus another's at every level of confidence that both reach.

    Args:
        method: of the first front; `other` of the second, the same if empty.
        rectified: whether each is with REG.
        data_set: whose levels.
    """
    one = front_of(measured, method, rectified[0])
    two = front_of(measured, other or method, rectified[1])
    found = {}
    for level in levels(method, data_set) if one is not None and two is not None else ():
        ours, theirs = one.fid_at(level), two.fid_at(level)  # type: ignore[union-attr]
        if ours is not None and theirs is not None:
            found[level] = difference(ours, theirs)
    return found


def front_numbers(measured: Sequence[Measured], data_set: str = "mnist") -> dict[str, Any]:
    """method -> what its two fronts say, for numbers.json.

    lowest: REG's lowest FID over scales minus that without, and its error.
    levels: confidence -> FID without REG and with it (None: not reached).
    """
    found = {}
    for method in METHODS:
        without, reg = (front_of(measured, method, rectified) for rectified in (False, True))
        if without is None or reg is None:
            continue
        apart, table = difference(reg.lowest(), without.lowest()), {}
        for level in levels(method, data_set):
            fids = [front.fid_at(level) for front in (without, reg)]
            table[f"{level:g}"] = [None if fid is None else float(fid[0]) for fid in fids]
        found[method] = {"lowest": [apart.value, apart.error], "levels": table}
    return found


def estimator_numbers(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Every estimator, plan and solver at the scale of CFG where most of them were sampled.

    Returns:
        For each its row, and where it is with REG `cfg`, what CFG's front has at its confidence
        (None: not reached), and its FID minus that, [difference, error].
    """
    cfg = [m for m in measured if m.point.method == "vanilla"]
    most = [m.point.scale for m in cfg if not plain(m.row)]
    if not most:
        return []
    own = [m for m in cfg if m.point.scale == max(most, key=most.count)]
    front, found = front_of(measured, "vanilla", False), []
    for each in sorted(own, key=lambda m: m.point.solver is not None):
        row = dict(each.row)
        if each.point.rectified:
            there = None if front is None else front.fid_at(each.row["confidence"])
            apart = None if there is None else difference(each.fids, there)
            row["cfg"] = None if there is None else float(there[0])
            row["difference"] = None if apart is None else [apart.value, apart.error]
        found.append(row)
    return found
