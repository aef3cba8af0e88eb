"""Plans: bands of noise level, and files that survive."""

from __future__ import annotations

from pathlib import Path

import pytest

from reg_engine import InputError, Plan, schedules
from reg_engine.solvers import table


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


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"format": "other"}',
        '{"format": "reg_engine.plan/1", "edges": ["x"], "modes": []}',
        '{"format": "reg_engine.plan/1"}',
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(InputError, match="plan"):
        Plan.load(path)
    with pytest.raises(InputError, match="read"):
        Plan.load(tmp_path / "missing.json")
