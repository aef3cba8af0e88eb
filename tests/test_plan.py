"""Plans: bands of noise level, and files that survive."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from reg_engine import InputError, Plan, schedules
from reg_engine.solvers import table

PLAN = '{"format": "reg_engine.plan/1", "edges": [1.5], "modes": ["cfg", "reg"], "report": {}}'


def test_bands() -> None:
    plan = Plan.interval(0.1, 2.0)
    assert [plan.mode_at(v) for v in (0.05, 0.1, 1.0, 2.0, 9.0)] == [
        "cfg",
        "reg",
        "reg",
        "cond",
        "cond",
    ]
    assert Plan.interval(0.0, float("inf")) == Plan.full()
    rows = table("heun", schedules.EDM(), 10)
    assert len(plan.modes_for(rows)) == len(rows.rows) == 19


def test_rows_round_trip_through_bands_and_json(tmp_path: Path) -> None:
    rows = table("euler", schedules.VPLinear(), 9)
    modes = ["cond", "cond", "reg", "cfg", "reg", "reg", "reg", "cfg", "cfg"]
    plan = Plan.of_rows(rows, modes, {"tolerance": 0.1})
    assert list(plan.modes_for(rows)) == modes
    plan.save(tmp_path / "plan.json")
    again = Plan.load(tmp_path / "plan.json")
    assert again == plan and again.report == {"tolerance": 0.1}
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def test_a_written_plan_is_read(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(PLAN)
    plan = Plan.load(tmp_path / "plan.json")
    assert (plan.edges, plan.modes, plan.report) == ((1.5,), ("cfg", "reg"), {})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"format": "other"}',
        '{"format": "reg_engine.plan/1", "edges": ["x"], "modes": []}',
        '{"format": "reg_engine.plan/1"}',
        "[" * 100_000,
        PLAN.replace("[1.5]", "[" + "9" * 401 + "]"),
        PLAN.replace("[1.5]", "[" + "9" * 5000 + "]"),
        PLAN.replace("[1.5]", "[1e999]"),
        PLAN.replace("[1.5]", "[NaN]"),
        PLAN.replace("[1.5]", "[true]"),
        PLAN.replace("[1.5]", '"1"'),
        PLAN.replace("[1.5]", '{"1": 2}'),
        PLAN.replace("[1.5]", "1.5"),
        PLAN.replace("[1.5]", "[2, 1.5]"),
        PLAN.replace("[1.5]", "[" + "1," * 100_000 + "1]"),
        PLAN.replace('"cfg"', "3"),
        PLAN.replace('"cfg"', '"' + "cfg" * 100_000 + '"'),
        PLAN.replace('["cfg", "reg"]', '"cfg"'),
        PLAN.replace("{}", "[1]"),
        PLAN.replace("{}", "null"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(InputError, match="plan|edges|modes") as caught:
        Plan.load(path)
    assert len(str(caught.value)) < 500
    with pytest.raises(InputError, match="read"):
        Plan.load(tmp_path / "missing.json")


def test_edges_lie_midway_on_the_log_scale() -> None:
    rows = table("euler", schedules.EDM(), 4)
    first, second, third, last = (row.sigma for row in rows.rows)
    plan = Plan.of_rows(rows, ["cond", "reg", "reg", "cfg"], {})
    assert plan.modes == ("cfg", "reg", "cond")
    assert plan.edges == pytest.approx([math.sqrt(last * third), math.sqrt(second * first)])


def test_rows_of_one_noise_level_keep_the_dearer_mode() -> None:
    """Heun's correction stands where the next step begins: one level, two rows."""
    rows = table("heun", schedules.EDM(), 3)
    levels = [row.noise_level for row in rows.rows]
    assert levels[1] == levels[2] and levels[3] == levels[4]
    for pair in (["cfg", "reg"], ["reg", "cfg"]):
        assert Plan.of_rows(rows, ["cond", *pair, "cond", "cond"], {}).modes_for(rows) == (
            "cond", "reg", "reg", "cond", "cond",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("lo", "hi"), [(-0.1, 1.0), (2.0, 1.0), (1.0, 1.0), (math.nan, 1.0), (0.0, math.nan)]
)
def test_interval_needs_ordered_noise_levels(lo: float, hi: float) -> None:
    with pytest.raises(InputError, match="0 <= lo < hi"):
        Plan.interval(lo, hi)
