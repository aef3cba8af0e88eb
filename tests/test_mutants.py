"""The mutation tool: which edits it makes, and that it tells a good test from a blind one."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parent / "mutants"

SOURCE = '''"""A module."""
import math

__all__ = ["f"]
LIMIT: float = 0.5


def f(a: int, b: int = 2) -> float:
    """Says 1 + 1."""
    if not 0 <= a < b:
        raise ValueError(f"a is {a + 1}")
    total = math.pow(a, b) - 1
    total += round(total, ndigits=3)
    return total if a == b and total else -total
'''


def edits() -> list[str]:
    code = (
        "import json, sys; from operators import mutants; "
        "print(json.dumps([[m.line, m.after, m.source] "
        "for m in mutants('m.py', sys.stdin.read())]))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], input=SOURCE, cwd=TOOL, text=True, capture_output=True,
        check=True,
    )  # fmt: skip
    rows = json.loads(out.stdout)
    for _, _, source in rows:
        ast.parse(source)
        assert source != SOURCE
    return [f"{line}: {after}" for line, after, _ in rows]


def test_every_kind_of_edit_and_nothing_in_messages() -> None:
    got = edits()
    for wanted in (
        "5: LIMIT: float = 1.0",
        "8: def f(a: int, b: int = 3) -> float:",
        "10: if (0 <= a < b):",
        "10: if not ((0) < (a) < (b)):",
        "10: if not ((0) <= (a) <= (b)):",
        "10: if not 1 <= a < b:",
        "11: pass",
        "12: total = ((math.pow(a, b)) + (1))",
        "12: total = math.pow(b, a) - 1",
        "13: pass",
        "13: total += round(total)",
        "14: return total if (not (a == b and total)) else -total",
        "14: return total if ((a == b) or (total)) else -total",
        "14: return total if ((a) != (b)) and total else -total",
        "14: return total if a == b and total else (total)",
    ):
        assert wanted in got, wanted
    assert not any("ValueError" in line for line in got)
    assert not any(line.startswith(("1:", "2:", "4:", "9:")) for line in got)
    assert len(got) == len(set(got)) == 17, got


def test_a_mutant_is_killed_by_the_test_that_looks(tmp_path: Path) -> None:
    """A tree of its own: one function that a test looks at, one that none does."""
    for name in ("reg_engine", "tests"):
        (tmp_path / name).mkdir()
    (tmp_path / "reg_engine" / "__init__.py").write_text("")
    (tmp_path / "reg_engine" / "plan.py").write_text(
        "def seen(x):\n    return x + 3\n\n\ndef unseen(x):\n    return x - 5\n"
    )
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\nmarkers=['slow', 'gpu']\n")
    (tmp_path / "tests" / "test_plan.py").write_text(
        "from reg_engine.plan import seen\n\n\ndef test_it():\n    assert seen(1) == 4\n"
    )
    (tmp_path / "tests" / "mutants").mkdir()
    for name in ("__main__.py", "operators.py", "equivalent.txt"):
        (tmp_path / "tests" / "mutants" / name).write_bytes((TOOL / name).read_bytes())
    out = subprocess.run(
        [sys.executable, "tests/mutants", "--count", "0", "--out", "kept.jsonl"],
        cwd=tmp_path, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    lines = out.stdout.splitlines()
    assert lines[:-2] == [
        "reg_engine/plan.py:6: return x - 5 => return ((x) + (5))",
        "reg_engine/plan.py:6: return x - 5 => return x - 6",
    ]
    assert lines[-2].startswith("50.0% of 4 noticed")
    assert len((tmp_path / "kept.jsonl").read_text().splitlines()) == 4
    assert (tmp_path / "reg_engine" / "plan.py").read_text().endswith("x - 5\n")


def test_what_is_left_out_are_mutants_of_today_each_with_a_reason() -> None:
    """A line whose code has changed would leave out nothing; code may have comments of its own."""
    code = (
        "import runpy; tool = runpy.run_path('__main__.py'); known = tool['equivalents'](); "
        "paths = {key.partition(': ')[0] for key in known}; "
        "found = {m.key for p in paths "
        "for m in tool['mutants'](p, (tool['ROOT'] / p).read_text('utf-8'))}; "
        "print(len(known), sorted(known.keys() - found), min(map(len, known.values())))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=TOOL, text=True, capture_output=True, check=True
    )
    count, unknown, shortest = out.stdout.strip().split(" ")
    assert int(count) > 5 and unknown == "[]" and int(shortest) > 8
