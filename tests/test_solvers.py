"""Solver tables: they check themselves, say what they claim, and refuse bad input."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from mixture import gaussian_variance

from reg_engine.errors import InputError
from reg_engine.schedules import (
    EDM,
    VESDE,
    VPSDE,
    Cosine,
    Flow,
    ScaledLinear,
    Schedule,
    VPLinear,
    karras,
)
from reg_engine.solvers import SOLVERS, Row, Solver, Table, table

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("ddpm", {}),
    ("ddim", {}),
    ("ddim", {"eta": 0.6}),
    ("ddim", {"eta": 1.0}),
    ("pndm", {}),
    ("pndm", {"skip_prk": True}),
    ("euler", {}),
    ("euler_ancestral", {}),
    ("heun", {}),
    ("heun", {"s_churn": 4.0}),
    ("heun", {"s_churn": 4.0, "s_tmin": 0.1, "s_tmax": 5.0}),
    ("dpmpp_2m", {}),
    ("dpmpp_2m", {"lower_order_final": False}),
    ("dpmpp_2m_sde", {}),
    ("unipc", {}),
    ("unipc", {"order": 3, "variant": "bh1", "lower_order_final": False}),
    ("flow_euler", {}),
    ("flow_heun", {}),
]
SCHEDULES: list[Schedule] = [
    VPLinear(),
    ScaledLinear(spacing="trailing", final="first"),
    ScaledLinear(spacing="karras"),
    Cosine(spacing="linspace"),
    EDM(),
    Flow(),
    Flow(3.0, grid_end=0.01),
    ScaledLinear(terminal=0.0),
    VPSDE(),
    VESDE(),
]


def usable(name: str, schedule: Schedule) -> bool:
    if name == "pndm" and schedule(schedule.prior_time)[0] == 0:
        return False  # its transfer needs alpha > 0 at the start
    if isinstance(schedule, Flow):
        return True
    if isinstance(schedule, Cosine) and name == "pndm":
        return False  # from noise level 2e4, see test_bad_input_is_named
    return not name.startswith("flow_")


TABLES = [
    (name, options, schedule)
    for name, options in VARIANTS
    for schedule in SCHEDULES
    if usable(name, schedule)
]


@pytest.mark.parametrize(("name", "options", "schedule"), TABLES)
@pytest.mark.parametrize("steps", [4, 11, 40])
def test_rows_lie_on_the_schedule(
    name: str, options: dict[str, Any], schedule: Schedule, steps: int
) -> None:
    """A table builds (so its self-check passed), and each row's t has the row's own marginal."""
    built = table(name, schedule, steps, **options)
    assert built.solver == name and built.order == SOLVERS[name].order
    assert built.preserves_marginals
    grid = schedule.grid(steps)
    assert built.rows[-1].s == grid[-1]
    assert set(grid[1:-1]) <= {row.t for row in built.rows} or options.get("s_churn")
    for row in built.rows:
        assert schedule(row.t) == (row.alpha, row.sigma)
        assert schedule(row.s) == (row.alpha_s, row.sigma_s)


@pytest.mark.parametrize(("name", "options", "schedule"), TABLES)
def test_one_wrong_coefficient_is_found(
    name: str, options: dict[str, Any], schedule: Schedule
) -> None:
    built = table(name, schedule, 6, **options)
    for index, row in enumerate(built.rows):
        for wrong in corrupted(row, first=index == 0, last=row is built.rows[-1]):
            rows = (*built.rows[:index], wrong, *built.rows[index + 1 :])
            with pytest.raises(InputError, match=r"rows\[|init_scale"):
                dataclasses.replace(built, rows=rows)
    for factor in (0.9, 1.5):
        with pytest.raises(InputError, match="init_scale"):
            dataclasses.replace(built, init_scale=built.init_scale * factor)


def corrupted(row: Row, first: bool, last: bool) -> list[Row]:
    """`row` with each of its numbers changed in turn by a thousandth."""
    step = 1e-3 * max(1.0, row.sigma_s)
    names = {"alpha", "sigma", "alpha_s", "sigma_s", "p", "q", "a", "c"}
    names |= (set() if first else {"t"}) | (set() if last else {"s"})
    if first and row.a == 0:
        names -= {"alpha"}  # the only row, and it does not read x
    rows = [dataclasses.replace(row, **{name: getattr(row, name) + step}) for name in sorted(names)]
    for j in range(len(row.b)):
        b = tuple(value + step * (i == j) for i, value in enumerate(row.b))
        rows.append(dataclasses.replace(row, b=b))
    return rows


def test_tables_refuse_what_is_not_a_solver() -> None:
    built = table("heun", EDM(), 4)
    row = built.rows[1]
    for wrong in (
        dataclasses.replace(row, a=math.nan),
        dataclasses.replace(row, b=()),
        dataclasses.replace(row, b=(*row.b, 0.0)),  # reads a d that does not exist yet
        dataclasses.replace(row, c=-0.1),
        dataclasses.replace(row, p=1.0),
    ):
        with pytest.raises(InputError, match=r"rows\[1\]"):
            dataclasses.replace(built, rows=(built.rows[0], wrong, *built.rows[2:]))
    with pytest.raises(InputError, match="empty"):
        dataclasses.replace(built, rows=())
    with pytest.raises(InputError, match="instead of|starts at|noise level"):
        dataclasses.replace(built, rows=built.rows[::-1])


def test_noise_level_may_rise_only_by_noise() -> None:
    up = Row(1.0, 1.0, 1.0, 2.0, 1.0, 2.0, p=1.0, q=-1.0, a=1.0, b=(1.0,))
    with pytest.raises(InputError, match="noise level"):
        Table("mine", 1.0, (up,), 1.0)
    noisy = dataclasses.replace(up, b=(0.0,), c=math.sqrt(3.0))
    assert Table("mine", 1.0, (noisy,), 1.0).stochastic


@pytest.mark.parametrize(("name", "options", "schedule"), TABLES)
def test_variance_is_exact_for_a_point(
    name: str, options: dict[str, Any], schedule: Schedule
) -> None:
    """Data at 0 (spread 0): the noise of a state is sigma_s^2 exactly, at every noise level."""
    grid = schedule.grid(12)
    for end in (5, 9):
        built = table(name, schedule, end, times=grid[: end + 1], **options)
        expected = built.rows[-1].sigma_s
        assert math.sqrt(gaussian_variance(built, 0.0)) == pytest.approx(expected, rel=1e-9)


def test_large_variance_is_flagged_and_larger() -> None:
    """ "large" leaves too much noise: the table says so, and its signal part is still checked."""
    small, large = (table("ddpm", VPLinear(), 20, variance=v) for v in ("small", "large"))
    assert small.preserves_marginals and not large.preserves_marginals
    for a, b in zip(small.rows[:-1], large.rows[:-1], strict=True):
        assert (a.a, a.b) == (b.a, b.b) and b.c > a.c
        beta = 1 - (b.alpha / b.alpha_s) ** 2
        assert b.c == pytest.approx(math.sqrt(beta), rel=1e-9)
    assert large.rows[-1].c == 0.0
    wrong = dataclasses.replace(large.rows[3], b=(large.rows[3].b[0] * 1.001,))
    with pytest.raises(InputError, match="x_0"):
        dataclasses.replace(large, rows=(*large.rows[:3], wrong, *large.rows[4:]))


def test_first_order_solvers_are_one_family() -> None:
    flow, edm = Flow(3.0), EDM()
    assert table("euler", flow, 9).rows == table("flow_euler", flow, 9).rows
    for schedule in (flow, edm, Cosine()):
        assert table("ddim", schedule, 9).rows == table("euler", schedule, 9).rows
        ancestral = table("euler_ancestral", schedule, 9).rows
        assert ancestral == table("ddim", schedule, 9, eta=1.0).rows
        assert ancestral == table("ddpm", schedule, 9).rows


@pytest.mark.parametrize(
    ("name", "options", "schedule"), [case for case in TABLES if case[0] != "pndm"]
)
def test_last_step_returns_denoised(name: str, options: dict[str, Any], schedule: Schedule) -> None:
    built = table(name, schedule, 7, **options)
    row = built.rows[-1]
    if row.sigma_s == 0:
        assert (row.p, row.q, row.a, row.b, row.c) == (0.0, 1.0, 0.0, (1.0,), 0.0)


def test_evaluations_and_history() -> None:
    counts = {
        name: (len(built.rows), built.history)
        for name in SOLVERS
        if not name.startswith("flow_")
        for built in [table(name, VPLinear(), 20)]
    }
    one = (20, 1)
    assert counts == {
        "ddpm": one,
        "ddim": one,
        "euler": one,
        "euler_ancestral": one,
        "heun": (39, 2),
        "dpmpp_2m": (20, 2),
        "dpmpp_2m_sde": (20, 2),
        "unipc": (20, 3),
        "pndm": (29, 13),
    }
    short = table("pndm", VPLinear(), 20, skip_prk=True)
    assert (len(short.rows), short.history) == (21, 5)
    assert len(table("flow_heun", Flow(), 20).rows) == 39
    assert len(table("heun", Flow(), 20).rows) == 38  # a single row from infinite noise, too
    single = [table(name, EDM(), 1).rows for name in ("heun", "dpmpp_2m", "euler")]
    assert [len(rows) for rows in single] == [1, 1, 1]
    assert len(table("pndm", EDM(), 1, skip_prk=True).rows) == 1


def test_dpm_solver_first_and_last_steps() -> None:
    def histories(steps: int, **options: Any) -> list[int]:
        times = karras(80.0, 0.01, steps + 1)
        built = table("dpmpp_2m", EDM(), steps, times=times, **options)
        return [len(row.b) for row in built.rows]

    assert histories(14) == [1, *[2] * 12, 1]
    assert histories(15) == [1, *[2] * 14]
    assert histories(14, lower_order_final=False) == [1, *[2] * 13]
    assert histories(15, euler_at_final=True) == [1, *[2] * 13, 1]
    assert [len(row.b) for row in table("dpmpp_2m", EDM(), 20).rows] == [1, *[2] * 18, 1]


def test_pndm_asks_midway() -> None:
    built = table("pndm", VPLinear(spacing="leading"), 10)
    expected = [900, 850, 850, 800, 800, 750, 750, 700, 700, 650, 650, 600, 600, 500, 400]
    assert [row.t for row in built.rows[:15]] == expected


def test_a_solver_may_be_given_itself() -> None:
    mine = dataclasses.replace(SOLVERS["ddim"], name="mine")
    assert isinstance(mine, Solver)
    assert table(mine, EDM(), 5).solver == "mine"


@pytest.mark.parametrize(
    ("name", "schedule", "steps", "options", "word"),
    [
        ("huen", EDM(), 8, {}, "'heun'"),
        (3, EDM(), 8, {}, "solver"),
        ("heun", "edm", 8, {}, "schedule"),
        ("heun", EDM(), 0, {}, "steps"),
        ("heun", EDM(), 2.5, {}, "steps"),
        ("heun", EDM(), True, {}, "steps"),
        ("heun", EDM(), 8, {"eta": 1.0}, "s_churn"),
        ("euler", EDM(), 8, {"eta": 1.0}, "none"),
        ("ddim", EDM(), 8, {"eta": 1.5}, "eta"),
        ("ddim", EDM(), 8, {"eta": -0.1}, "eta"),
        ("ddim", EDM(), 8, {"eta": math.nan}, "eta"),
        ("ddim", EDM(), 8, {"eta": "1"}, "eta"),
        ("ddim", EDM(), 8, {"eta": True}, "eta"),
        ("ddpm", EDM(), 8, {"variance": "larger"}, "large"),
        ("unipc", EDM(), 8, {"order": 2.5}, "order"),
        ("unipc", EDM(), 8, {"order": 4}, "order"),
        ("unipc", EDM(), 8, {"variant": "bh3"}, "variant"),
        ("ddim", EDM(), 8, {"clip": 0.0}, "clip"),
        ("ddim", EDM(), 8, {"clip": "1"}, "clip"),
        ("ddim", EDM(), 8, {"keep_epsilon": True}, "keep_epsilon"),
        ("heun", EDM(), 8, {"clip": 1.0, "keep_epsilon": True}, "keep_epsilon"),
        ("pndm", EDM(), 8, {"skip_prk": 1}, "skip_prk"),
        ("pndm", EDM(), 3, {}, "skip_prk"),
        ("pndm", Flow(), 8, {}, "flow_heun"),
        ("pndm", Cosine(spacing="trailing"), 8, {}, "amplify"),
        ("pndm", Cosine(spacing="trailing"), 8, {"skip_prk": True}, "amplify"),
        ("heun", EDM(), 8, {"s_churn": -1.0}, "s_churn"),
        ("heun", EDM(), 8, {"s_tmin": 2.0, "s_tmax": 1.0}, "s_tmin"),
        ("flow_heun", EDM(), 8, {}, "'heun'"),
        ("flow_euler", VPLinear(), 8, {}, "'euler'"),
        ("heun", EDM(), 3, {"times": [3.0, 2.0, 1.0]}, "times"),
        ("heun", EDM(), 2, {"times": [3.0, 2.0, 2.0]}, "times"),
        ("heun", EDM(), 2, {"times": [1.0, 2.0, 3.0]}, "times"),
        ("heun", EDM(), 2, {"times": [3.0, math.nan, 1.0]}, "t: "),
        ("heun", VPLinear(), 2, {"times": [1200.0, 500.0, 1.0]}, "t: "),
        ("heun", EDM(), 2, {"times": ["a", "b", "c"]}, "times"),
    ],
)
def test_bad_input_is_named(
    name: Any, schedule: Any, steps: Any, options: dict[str, Any], word: str
) -> None:
    with pytest.raises(InputError, match=word):
        table(name, schedule, steps, **options)
