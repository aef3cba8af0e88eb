"""The solvers by name, their options, and `table(...)`, which turns one into checked rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..errors import InputError, choice
from ..schedules import Flow, Schedule
from ..values import as_bool, as_float, as_int, shown
from . import multistep, onestep, unipc
from .refine import Gibbs, refined
from .tables import Row, Table

__all__ = ["MOST_STEPS", "SOLVERS", "STEPS", "Option", "Solver", "table"]

STEPS = 32  # where neither steps nor times are given
MOST_STEPS = 10_000  # of one table: its rows lie in memory, on the host and on the device


@dataclass(frozen=True)
class Option:
    """What an option may be: one of `known`, of the default's type if that is a bool or an int, and
    in [low, high]."""

    default: Any
    known: tuple[str, ...] = ()
    low: float = 0.0
    high: float = math.inf

    def check(self, name: str, value: Any) -> Any:
        """`value`, or InputError naming the option."""
        if self.known:
            return choice(name, value, self.known)
        if isinstance(self.default, bool):
            return as_bool(name, value)
        remedy = f"Give a number in [{self.low:g}, {self.high:g}]"
        number = as_float(name, value, remedy, lambda v: self.low <= v <= self.high)
        if not isinstance(self.default, int):
            return number
        remedy = f"Give an integer, {self.default} by default"
        return as_int(name, value, int(self.low), remedy)


@dataclass(frozen=True)
class Solver:
    """A method: `build(schedule, times, **options)` gives its rows.

    Args:
        name: as in SOLVERS.
        order: of convergence in the number of steps (weak order where noise is added).
        stochastic: whether it adds noise whatever its options.
        build: the rows on a grid of times.
        options: name -> what it may be.
        marginal_options: the option values under which the rows keep the marginals exactly.
        flow_only: whether it is written in flow time.
    """

    name: str
    order: float
    stochastic: bool
    build: Callable[..., list[Row]]
    options: Mapping[str, Option] = field(default_factory=dict)
    marginal_options: Mapping[str, Any] = field(default_factory=dict)
    flow_only: bool = False

    def __post_init__(self) -> None:
        for name, option in self.options.items():
            if not isinstance(option, Option):
                raise InputError("options", f"{name} is {shown(option)}", "Give Option(default)")

    def checked(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """All options, defaults filled in; InputError for an unknown name or a bad value."""
        for name in options:
            if name not in self.options:
                known = ", ".join(sorted(self.options)) or "none"
                raise InputError(
                    name, f"is not an option of solver {self.name!r}", f"Known: {known}"
                )
        values = {name: option.default for name, option in self.options.items()} | dict(options)
        return {name: self.options[name].check(name, value) for name, value in values.items()}

    def rows(self, schedule: Schedule, times: Any, values: Mapping[str, Any]) -> tuple[Row, ...]:
        """What `build` gives, one Row or more, else InputError."""
        built: Any = self.build(schedule, times, **values)
        rows = tuple(built) if isinstance(built, (list, tuple)) else ()
        if not rows or not all(isinstance(row, Row) for row in rows):
            problem = f"{self.name!r} gave {shown(built)} for rows"
            raise InputError("solver", problem, "Return a list with a Row an evaluation")
        return rows


def _plain(schedule: Schedule, times: Sequence[float]) -> list[Row]:
    return onestep.ancestral(schedule, times, eta=0.0)


def _ancestral(schedule: Schedule, times: Sequence[float]) -> list[Row]:
    return onestep.ancestral(schedule, times, eta=1.0)


_CHURN = {
    "s_churn": Option(0.0),
    "s_tmin": Option(0.0),
    "s_tmax": Option(math.inf),
    "s_noise": Option(1.0),
}
_DPM = {"lower_order_final": Option(True), "euler_at_final": Option(False)}

SOLVERS: dict[str, Solver] = {
    solver.name: solver
    for solver in (
        Solver(
            "ddpm",
            1.0,
            True,
            onestep.ddpm,
            {"variance": Option("small", ("small", "large", "learned"))},
            {"variance": "small"},
        ),
        Solver("ddim", 1.0, False, onestep.ancestral, {"eta": Option(0.0, high=1.0)}),
        Solver("pndm", 2.0, False, multistep.pndm, {"skip_prk": Option(False)}),
        Solver("euler", 1.0, False, _plain),
        Solver("euler_ancestral", 1.0, True, _ancestral),
        Solver("heun", 2.0, False, onestep.heun, _CHURN, {"s_noise": 1.0}),
        Solver("dpmpp_2m", 2.0, False, multistep.dpmpp_2m, _DPM),
        Solver("dpmpp_2m_sde", 2.0, True, multistep.dpmpp_2m_sde, _DPM),
        Solver(
            "unipc",
            2.0,
            False,
            unipc.unipc,
            {
                "order": Option(2, low=1, high=3),
                "variant": Option("bh2", ("bh1", "bh2")),
                "lower_order_final": Option(True),
            },
        ),
        Solver("flow_euler", 1.0, False, _plain, flow_only=True),
        Solver("flow_heun", 2.0, False, onestep.flow_heun, flow_only=True),
    )
}


def table(
    solver: str | Solver,
    schedule: Schedule,
    steps: int | None = None,
    *,
    times: Sequence[float] | None = None,
    clip: float | None = None,
    keep_epsilon: bool = False,
    refine: Gibbs | None = None,
    **options: Any,
) -> Table:
    """The checked rows of `solver` on `schedule`.

    Args:
        solver: a name in SOLVERS, or a Solver.
        schedule: t -> (alpha_t, sigma_t).
        steps: number of steps in [1, MOST_STEPS] (not of evaluations: see len(table.rows)); None =
            as many as `times` have, or STEPS.
        times: steps + 1 times, strictly from noisy to clean; None = schedule.grid(steps).
        clip, keep_epsilon: clip the denoised estimates, see Table. refine: rounds after the last.
        options: the solver's own, as in SOLVERS[name].options.

    Raises:
        InputError: an unknown solver or option, a value out of range, steps < 1 or more than
            MOST_STEPS, times not in order, or a flow_* solver on another schedule than Flow.
    """
    if isinstance(solver, str):
        solver = SOLVERS[choice("solver", solver, SOLVERS)]
    elif not isinstance(solver, Solver):
        raise InputError("solver", f"is a {type(solver).__name__}", f"Known: {', '.join(SOLVERS)}")
    if not isinstance(schedule, Schedule):
        raise InputError(
            "schedule", f"is a {type(schedule).__name__}", "Give one of reg_engine.schedules"
        )
    if solver.flow_only and not isinstance(schedule, Flow):
        other = solver.name.removeprefix("flow_")
        raise InputError(
            "solver",
            f"{solver.name!r} needs a Flow schedule, this is {type(schedule).__name__}",
            f"Use {other!r}, which works on every schedule",
        )
    values = solver.checked(options)
    if values.get("s_tmin", 0.0) > values.get("s_tmax", 0.0):
        raise InputError("s_tmin", "is above s_tmax", "Give s_tmin <= s_tmax")
    if steps is not None and as_int("steps", steps) > MOST_STEPS:
        raise InputError("steps", f"is {steps}", f"Give at most {MOST_STEPS}")
    times = schedule.times if times is None and steps is None else times
    if times is None:
        grid = schedule.grid(STEPS if steps is None else steps)
    else:
        grid = schedule.check_times(times, steps)
    if len(grid) > MOST_STEPS + 1:
        raise InputError("times", f"are {len(grid)}", f"Give at most {MOST_STEPS + 1}")
    rows = refined(refine, schedule, grid, partial(solver.rows, schedule, values=values))
    exact = all(values[name] == value for name, value in solver.marginal_options.items())
    scale = _init_scale(schedule, float(grid[0]), rows[0], values.get("s_noise", 1.0))
    if clip is not None:
        clip = Option(1.0).check("clip", clip)
    keep_epsilon = Option(False).check("keep_epsilon", keep_epsilon)
    return Table(solver.name, solver.order, rows, scale, exact, clip, keep_epsilon, schedule)


def _init_scale(schedule: Schedule, start: float, first: Row, s_noise: float) -> float:
    """Deviation of the first state: the prior's, and that of the first step's churn if any."""
    scale = schedule.prior_scale(start)
    if first.t == start:
        return scale
    alpha, sigma = schedule(start)
    growth = first.alpha / alpha
    added = max(first.sigma**2 - (growth * sigma) ** 2, 0.0)
    return math.hypot(growth * scale, s_noise * math.sqrt(added))
