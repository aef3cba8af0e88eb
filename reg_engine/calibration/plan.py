"""Calibration: measure on a few samples where the rectifier and the reference matter, plan for a
tolerance.

A run of full REG records, at every evaluation, how far one step would land elsewhere if that
evaluation were only `cfg` or only `cond`. The cheapest modes whose summed displacement stays
under a budget make a candidate;
the candidate is then run, and its real distance from full REG decides: the budget shrinks until the
measured deviation is within the tolerance. So the tolerance is a measurement, not an extrapolation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..checks import as_seeds, known_names
from ..engine import Engine
from ..errors import InputError
from ..loop.rows import Conds
from ..loop.stats import Stats
from ..networks.point import Direction, Point
from ..plan import MODES, Plan, calibrates
from ..rectifiers import Rectifier, looks, name_of
from ..values import as_float

__all__ = ["calibrate"]

COST = {"ref": 1, "cond": 1, "cfg": 2, "reg": 3}
_SHRINK = 0.6  # of the budget, when a candidate deviates more than the tolerance
_ROUNDS = 12


@dataclass
class _Recorder:
    """A rectifier that hands on another's work and keeps how much of it a cheaper mode would lose.

    Per evaluation: mean over samples of |rectified|^2 (`cond` would lose it) and |rectified -
    delta|^2 (`cfg`).
    """

    inner: Rectifier
    lost: dict[int, dict[str, list[Tensor]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return name_of(self.inner)

    @property
    def looks(self) -> bool:
        return looks(self.inner)

    def __call__(self, point: Point, direction: Direction) -> tuple[Tensor, Tensor, Tensor]:
        cond, rectified, delta = self.inner(point, direction)
        kept = self.lost.setdefault(point.index, {"cond": [], "cfg": []})
        kept["cond"].append(rectified.flatten(1).square().sum(1))
        kept["cfg"].append((rectified - delta).flatten(1).square().sum(1))
        return cond, rectified, delta

    def displacements(self, engine: Engine) -> list[dict[str, float]]:
        """By row: how far x_s / alpha_s would land elsewhere (root mean square over samples)."""
        out = []
        for index, (row, w) in enumerate(zip(engine.table.rows, engine.weights, strict=True)):
            reach = abs(row.b[0] * row.q * w) / (row.alpha_s or 1.0)  # d x_s / d guided, times w
            kept = self.lost.get(index, {})
            out.append(
                {
                    mode: reach * float(torch.cat(kept[mode]).mean().sqrt()) if kept else 0.0
                    for mode in ("cond", "cfg")
                }
            )
        return out


class _Recording(Engine):
    """An engine whose estimator is recorded once it is settled; `auto` is one that measures K delta
    at every row, which the plan's modes are compared with."""

    recorder: _Recorder

    def prepare(self, conds: Conds, count: int, stats: Stats) -> None:
        self.choices = replace(self.choices, static=True)
        super().prepare(conds, count, stats)
        for context, (rectifier, reason) in self._settled.items():
            if not isinstance(rectifier, _Recorder):
                self.recorder = _Recorder(rectifier)
                self._settled[context] = self.recorder, reason


@calibrates
def calibrate(
    model: Any,
    cond: Any,
    *,
    tolerance: float = 0.02,
    seeds: Iterable[int] | None = None,
    **choices: Any,
) -> Plan:
    """Return the cheapest plan found whose samples deviate from full REG by at most `tolerance`.

    Args:
        model, cond, seeds: as for `sample`; 8 to 32 samples are enough.
        tolerance: largest root-mean-square distance between the samples of the plan and of full
            REG with the same seeds, relative to the root mean square of full REG's samples; in
            (0, 1).
        choices: as for `Engine` (scale, rectify, solver, steps, ...), without `plan`.

    Returns:
        A Plan whose report holds the tolerance, the measured deviation, the cost in evaluations a
        sample (F) against full REG and CFG, and the setting.

    Raises:
        InputError: a bad argument, or guidance that is never rectified.
    """
    known_names(choices, Engine.__init__, "calibrate")
    _check(tolerance, choices)
    seeds = as_seeds(seeds, cond)
    full = _Recording(model, **choices)
    if full.guidance.rectify is None or "reg" not in full.modes:
        raise InputError(
            "rectify", "no evaluation is rectified", "Calibrate with rectify and scale > 1"
        )
    out = full.sample(cond, seeds)
    wanted, recorder, costs = out.samples, full.recorder, {Plan.full(): _cost(out.stats)}
    settings = {k: v for k, v in choices.items() if k not in ("scale", "rectify", "guidance")}
    settings["guidance"] = replace(full.guidance, rectify=recorder.inner)

    def deviation(plan: Plan) -> float:
        found = Engine(model, **settings, plan=plan).sample(cond, seeds)
        costs[plan] = _cost(found.stats)
        return float((found.samples - wanted).norm() / wanted.norm())

    size = float(wanted.flatten(1).square().sum(1).mean().sqrt())
    plan, measured = _search(full, recorder.displacements(full), size, tolerance, deviation)
    report = {
        "tolerance": tolerance,
        "measured_deviation": measured,
        "cost": costs.get(plan, costs[Plan.full()]),
        "cost_full": costs[Plan.full()],
        "cost_cfg": sum(_cost_of_cfg(full, index) for index in range(len(full.modes))),
        "solver": full.table.solver,
        "evaluations": len(full.table.rows),
        "samples": int(wanted.shape[0]),
        "estimator": recorder.name,
    }
    return replace(plan, report=report)


def _cost(stats: Stats) -> float:
    """Evaluations and backward passes a sample."""
    return stats.nfe + stats.backward


def _cost_of_cfg(engine: Engine, index: int) -> int:
    """Evaluations a sample of a row without rectifier."""
    if engine.modes[index] in ("cond", "ref"):
        return 1
    return 1 + (sum(w is not None for w in engine.terms_at(index)) or 1)


def _check(tolerance: float, choices: dict[str, Any]) -> None:
    remedy = "Give a number between 0 and 1, such as 0.02"
    as_float("tolerance", tolerance, remedy, lambda v: 0 < v < 1)
    if choices.get("plan") is not None:
        raise InputError("plan", "is what calibration finds", "Leave it out")


def _search(
    full: Engine,
    displacements: list[dict[str, float]],
    size: float,
    tolerance: float,
    deviation: Callable[[Plan], float],
) -> tuple[Plan, float]:
    """The first candidate whose measured deviation is within the tolerance, from cheap to dear."""
    budget = tolerance
    for _ in range(_ROUNDS):
        plan = _plan(full, _cheapest(displacements, full.modes, budget * size))
        measured = deviation(plan)
        if measured <= tolerance:
            return plan, measured
        budget *= _SHRINK
    return _plan(full, list(full.modes)), 0.0


def _plan(full: Engine, modes: list[str]) -> Plan:
    """A weight of -1, not the plan, makes a row `ref`."""
    return Plan.of_rows(full.table, ["reg" if mode == "ref" else mode for mode in modes], {})


def _cheapest(
    displacements: list[dict[str, float]], modes: tuple[str, ...], budget: float
) -> list[str]:
    """Greedy: the changes that save most for the least displacement, within the budget."""
    offers = []
    for index, (row, mode) in enumerate(zip(displacements, modes, strict=True)):
        for cheaper in () if mode == "ref" else MODES[: MODES.index(mode)]:
            saved = COST[mode] - COST[cheaper]
            offers.append((row[cheaper] / saved, index, cheaper, row[cheaper]))
    chosen, spent, left = list(modes), [0.0] * len(modes), budget
    for _, index, cheaper, cost in sorted(offers):
        if COST[cheaper] < COST[chosen[index]] and cost - spent[index] <= left:
            left -= cost - spent[index]
            chosen[index], spent[index] = cheaper, cost
    return chosen
