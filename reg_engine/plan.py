"""Plans: which work each evaluation does. `cond` 1F, `cfg` 2F, `reg` what the estimator needs (3F).

K -> 0 at high noise, where REG switches guidance off and the reference is wasted; K -> I at low
noise, where REG is CFG and the rectifier is wasted. A plan is stated in noise levels sigma/alpha,
so that one plan serves every solver, schedule and number of steps.
"""

from __future__ import annotations

import json
import math
import os
import reprlib
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from .errors import InputError, choice
from .solvers import Table
from .storage.files import write_whole
from .storage.readers import read_json, refusing
from .values import as_float, as_levels, as_tuple, store

__all__ = ["MODES", "Plan", "calibrates"]

MODES = ("cond", "cfg", "reg")
_FORMAT = "reg_engine.plan/1"
_F = TypeVar("_F", bound=Callable[..., Any])
_CALIBRATE: list[Callable[..., Plan]] = []


def calibrates(function: _F) -> _F:
    """Make `function` what `Plan.calibrate` calls: it stands on the engine, and that on plans."""
    _CALIBRATE[:] = [function]
    return function


@dataclass(frozen=True)
class Plan:
    """Modes by noise level: `modes[i]` where edges[i-1] <= sigma/alpha < edges[i].

    Args:
        edges: strictly increasing noise levels > 0.
        modes: one more than edges, each "cond", "cfg" or "reg", from clean to noisy.
        report: what a calibration measured (read back from JSON); free of meaning for the plan
            itself.

    Raises:
        InputError: edges not increasing, wrong number of modes, unknown mode.
    """

    edges: tuple[float, ...]
    modes: tuple[str, ...]
    report: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        steps = (f" < {e:g} <= {mode}" for e, mode in zip(self.edges, self.modes[1:], strict=True))
        return f"Plan({self.modes[0]}{''.join(steps)})"

    def __post_init__(self) -> None:
        remedy = "Give increasing noise levels > 0"
        edges = as_tuple("edges", self.edges, remedy)
        edges = tuple(as_float("edges", e, remedy, lambda v: 0 < v < math.inf) for e in edges)
        if any(low >= high for low, high in pairwise(edges)):
            raise InputError("edges", f"are {reprlib.repr(edges)}", remedy)
        store(self, edges=edges, modes=as_tuple("modes", self.modes, "Give a tuple of modes"))
        if not isinstance(self.report, Mapping):
            raise InputError("report", f"is a {type(self.report).__name__}", "Give a dict")
        if len(self.modes) != len(self.edges) + 1:
            raise InputError(
                "modes",
                f"{len(self.modes)} for {len(self.edges)} edges",
                "Give one mode more than edges",
            )
        for mode in self.modes:
            choice("modes", mode, MODES)

    @classmethod
    def full(cls) -> Plan:
        """REG at every evaluation."""
        return cls((), ("reg",))

    @classmethod
    def interval(cls, lo: float, hi: float) -> Plan:
        """`cfg` below noise level lo, `reg` from lo to hi, `cond` above hi; 0 <= lo < hi <= inf."""
        lo, hi = as_levels(lo, hi)
        edges, modes = [], ["reg"]
        if lo > 0:
            edges, modes = [lo], ["cfg", "reg"]
        if math.isfinite(hi):
            edges, modes = [*edges, hi], [*modes, "cond"]
        return cls(tuple(edges), tuple(modes))

    @classmethod
    def of_rows(cls, table: Table, modes: list[str], report: Mapping[str, Any]) -> Plan:
        """The plan with the given mode at every row's noise level; edges lie halfway (log)
        between."""
        levels: dict[float, str] = {}
        for row, mode in zip(table.rows, modes, strict=True):
            level = row.noise_level
            levels[level] = max(mode, levels.get(level, mode), key=MODES.index)
        ordered = sorted(levels)
        edges, kept = [], [levels[ordered[0]]]
        for low, high in pairwise(ordered):
            if levels[high] != kept[-1]:
                edges.append(math.sqrt(low * high))
                kept.append(levels[high])
        return cls(tuple(edges), tuple(kept), dict(report))

    @classmethod
    def calibrate(cls, model: Any, cond: Any, tolerance: float = 0.02, **choices: Any) -> Plan:
        """The cheapest plan found whose samples stay within `tolerance` of full REG; see
        calibration/plan.py."""
        return _CALIBRATE[0](model, cond, tolerance=tolerance, **choices)

    def mode_at(self, noise_level: float) -> str:
        """The mode at sigma/alpha."""
        return self.modes[bisect_right(self.edges, noise_level)]

    def modes_for(self, table: Table) -> tuple[str, ...]:
        """One mode for every row of a solver's table."""
        return tuple(self.mode_at(row.noise_level) for row in table.rows)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan as JSON, whole or not at all."""
        data = {
            "format": _FORMAT,
            "edges": list(self.edges),
            "modes": list(self.modes),
            "report": dict(self.report),
        }
        write_whole(Path(path), (json.dumps(data, indent=1) + "\n").encode(), "path")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Read a plan written by `save`.

        Raises:
            InputError: no such file, not JSON, or not a plan.
        """
        remedy = "Give a file written by Plan.save or `reg-engine calibrate`"
        data = read_json(path, "plan", remedy)
        if not isinstance(data, dict) or data.get("format") != _FORMAT:
            raise InputError("plan", f"{path} is not a plan of format {_FORMAT!r}", remedy)
        edges, modes, report = data.get("edges"), data.get("modes"), data.get("report", {})
        if not (isinstance(edges, list) and isinstance(modes, list) and isinstance(report, dict)):
            raise InputError("plan", f"{path} lacks edges, modes or a report", remedy)
        if {type(e) for e in edges} - {int, float} or {type(m) for m in modes} - {str}:
            raise InputError("plan", f"{path} has edges that are no numbers, or modes", remedy)
        with refusing("plan", f"{path} is damaged", remedy):  # an integer that no float can hold
            return cls(tuple(map(float, edges)), tuple(modes), report)
