"""The check that runs where a GPU is at hand for minutes: its dry run on the CPU, part by part."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench import gpu, profile_step, records, smoke, tune
from bench.cases import KERNEL_CASES, MODEL_CASES
from bench.contenders import CONTENDERS, damped, fixed_plan
from bench.duals import CASES, PROVIDERS
from bench.profile_step import KERNELS
from reg_engine import schedules
from reg_engine.solvers import table

ROOT = Path(__file__).resolve().parent.parent

SCRIPT = ROOT / "bench" / "gpu_check.sh"
COMMIT = "0123456789abcdef"
# What the machine with the GPU lacks.
ABSENT = ("diffusers", "nvtx", "faiss")


# A stand-in for Python, told what fails: it notes what it is asked, and finds every package.
PYTHON = """#!/bin/bash
echo "$*" >>"$ASKED"
case "$*" in *"$FAILS"*) exit 3 ;; esac
case "$*" in *bench.smoke*) printf 'kernels: %s\ncapture: %s\n' $SMOKE ;; esac
"""


def check(out: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The dry run into `out`, with a Python that finds none of ABSENT."""
    command = ["bash", str(SCRIPT), str(out)]
    own = {**blocking(out.parent), "REG_ENGINE_GPU_DRY": "1", **environment}
    return subprocess.run(command, env=own, capture_output=True, text=True, timeout=500)


def blocking(folder: Path) -> dict[str, str]:
    """The environment of a Python that finds none of ABSENT."""
    blocked = folder / "blocked"
    blocked.mkdir(exist_ok=True)
    (blocked / "sitecustomize.py").write_text(
        "import sys\n\n\nclass Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {ABSENT!r}:\n"
        "            raise ModuleNotFoundError(name, name=name)\n\n\n"
        "sys.meta_path.insert(0, Absent())\n",
        encoding="utf-8",
    )
    own = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    own |= {"PYTHONPATH": str(blocked), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    return own | {"REG_ENGINE_COMMIT": COMMIT}


def check_duals(rows: list[records.Row]) -> None:
    duals = {(row.case, row.provider) for row in rows if row.case.endswith("_dual")}
    assert {(name, "eager") for name in PROVIDERS} | {("attention_dual", "sdpa")} <= duals


def test_what_runs_on_a_gpu_needs_no_fuzzer() -> None:
    """A machine with torch and pytest alone collects the tests that need its GPU."""
    files = [p for p in (ROOT / "tests").rglob("*.py") if "mark.gpu" in p.read_text("utf-8")]
    files.remove(Path(__file__))
    assert len(files) > 1
    for path in (*files, ROOT / "tests" / "conftest.py"):
        imported = re.findall(r"^(?:from|import) (\w+)", path.read_text("utf-8"), re.M)
        assert imported and not {"hypothesis", "fuzz_settings", "fuzz_cases"} & {*imported}, path


NAMED = (
    *("install", "environment", "smoke", "tests", "kernels"),
    *("duals", "kernel-tests", "tune", "ncu", "compile"),
)


@pytest.mark.slow
@pytest.mark.parametrize("cases", [gpu.CASES[:1], gpu.CASES], ids=["one", "all"])
def test_the_dry_run_passes_every_part_and_is_not_repeated(
    cases: tuple[str, ...], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    asked = {"REG_ENGINE_GPU_CASES": cases[0]} if len(cases) == 1 else {}
    done = check(out, **asked)
    said = "\n".join(path.read_text("utf-8") for path in out.glob("*.txt"))
    assert done.returncode == 0, done.stdout + said
    lines = (out / "state.txt").read_text("utf-8").splitlines()
    parts = {line.split()[1]: line.split()[2] for line in lines}
    assert all(line.startswith(COMMIT[:12]) for line in lines)
    assert set(NAMED) < set(parts) and set(parts.values()) == {"green"}, lines
    assert sum(part.startswith("table:") for part in parts) == min(2, len(cases))
    assert len(list(out.iterdir())) == 8
    (measured,) = out.glob("*.csv")
    rows = records.read(measured)
    assert {row.case for row in rows if row.suite == "sampling"} == set(cases)
    check_duals(rows)
    assert {row.commit for row in rows} == {COMMIT[:12]}
    assert all(row.p50 and row.peak_bytes for row in rows if row.suite == "sampling")
    again = check(out, **asked)
    # All but the install, whose folder is a new one each time.
    assert again.returncode == 0 and again.stdout.count("green before") == len(parts) - 1
    assert records.read(measured) == rows


def scripted(out: Path, fails: str = "none fails", smoke: str = "green green", **more: str) -> str:
    """What state.txt says after the script ran with the stand-in, `exit N` after it."""
    stand_in = out.parent / "python"
    stand_in.write_text(PYTHON, encoding="utf-8")
    stand_in.chmod(0o755)
    own = {"PYTHON": str(stand_in), "ASKED": str(out.parent / "asked"), "FAILS": fails}
    done = check(out, **own, SMOKE=smoke, **more)
    return (out / "state.txt").read_text("utf-8") + done.stdout + f"exit {done.returncode}"


def test_the_script_goes_through_its_parts_once(tmp_path: Path) -> None:
    """Red parts come again, green ones do not; a red smoke part leaves out what it spoke of."""
    out, asked = tmp_path / "out", tmp_path / "asked"
    said = scripted(out, "bench.tune", REG_ENGINE_GPU_CASES="dit-xl-2-256 edm2-s-64")
    state = (out / "state.txt").read_text("utf-8").splitlines()
    parts = {line.split()[1]: line.split()[2] for line in state}
    assert set(NAMED) | {"table:dit-xl-2-256", "table:edm2-s-64"} == set(parts)
    assert parts.pop("tune") == "red" and set(parts.values()) == {"green"}
    assert said.endswith("red: tune\nexit 1") and re.search(r"tune red \d+ s, exit 3", said)
    assert all(line.startswith(COMMIT[:12]) for line in state)
    told = asked.read_text("utf-8")
    assert "-m bench.gpu table dit-xl-2-256 --out" in told and "--eager" not in told
    assert told.count("-m bench.") == told.count("--dry") + 1  # of smoke, which has --device cpu
    asked.unlink()
    said = scripted(out, REG_ENGINE_GPU_CASES="dit-xl-2-256 edm2-s-64")
    assert said.count("green before") == len(parts) - 1 and said.endswith("is red\nexit 0")
    again = asked.read_text("utf-8")
    assert "bench.tune" in again and again.count("-m bench.") == 1
    said = scripted(tmp_path / "other", smoke="red red", REG_ENGINE_GPU_CASES="edm2-s-64")
    for name in ("kernels", "duals", "tune"):
        assert re.search(rf"{name} missing \d+ s, the smoke part has red kernels", said)
    assert "table edm2-s-64 --out" in asked.read_text("utf-8")
    assert "--eager --dry" in asked.read_text("utf-8")


def test_a_case_is_measured_where_much_is_absent(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.gpu", "table", gpu.CASES[0], "--out", str(tmp_path)]
    own = blocking(tmp_path)
    own["PYTHONPATH"] += f"{os.pathsep}{ROOT}"
    done = subprocess.run([*command, "--dry"], env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (measured,) = tmp_path.glob("*.csv")
    rows = records.read(measured)
    assert {row.case for row in rows if row.suite == "sampling"} == {gpu.CASES[0]}
    assert {row.provider for row in rows} >= {*gpu.DRY}
    assert {row.commit for row in rows} == {COMMIT[:12]}
    assert all(row.p50 and row.peak_bytes for row in rows)


@pytest.fixture
def first_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tiny case of every kernel; tests/kernels has many."""
    for cases in (KERNEL_CASES, *CASES.values()):
        monkeypatch.setitem(cases, "tiny", cases["tiny"][:1])


@pytest.mark.usefixtures("first_cases")
@pytest.mark.parametrize("part", ["environment", "kernels", "duals", "compile"])
def test_a_measuring_part_runs_dry(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REG_ENGINE_COMMIT", COMMIT)
    monkeypatch.setattr(sys, "argv", ["gpu", part, "--out", str(tmp_path), "--dry"])
    assert gpu.main() == 0
    rows = [row for path in tmp_path.glob("*.csv") for row in records.read(path)]
    if part == "duals":
        check_duals(rows)
    elif part != "environment":
        named = {kernel.name for kernel in KERNELS}
        assert named <= {row.case for row in rows} | {row.suite for row in rows}, rows[0]


def test_the_profiled_kernels_run_dry(capsys: pytest.CaptureFixture[str]) -> None:
    profile_step.main(dry=True)
    assert "reference: works" in capsys.readouterr().out


@pytest.mark.usefixtures("first_cases")
def test_smoke_and_tune_run_dry(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["smoke", "--device", "cpu"])
    assert smoke.main() == 0
    said = capsys.readouterr().out
    assert "kernels: green, 0 of" in said and "capture: green, 0 of" in said
    monkeypatch.setattr(sys, "argv", ["tune", "--dry"])
    tune.main()
    said = capsys.readouterr().out
    assert all(f'  "{kernel.name}": ' in said for kernel in KERNELS)


def test_nothing_starts_after_the_deadline(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert check(out, REG_ENGINE_GPU_DEADLINE="3").returncode == 1  # not even the environment
    assert "no time left" in (out / "state.txt").read_text("utf-8")


def test_usage_and_limits() -> None:
    done = subprocess.run(["bash", str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 2 and "usage" in done.stderr
    text = SCRIPT.read_text("utf-8")
    assert re.search(r'^cases="(.*)"$', text, re.M)[1].split() == list(gpu.CASES)
    assert "REG_ENGINE_GPU_DEADLINE:-560" in text
    (names,) = re.findall(r'"regex:(.*?)"', text)
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "csrc" / "cuda").glob("*.cu"))
    compiled = set(re.findall(r"\b(\w+)_kernel\(", sources)) - {"copy", "matrix"}
    assert compiled == {"combine", "step", "probe", "chunk"} <= set(names.split("|"))
    assert {kernel.name for kernel in KERNELS} == {"combine", "guided_step", "probe", "reduce"}


def test_the_table_is_the_papers_and_knows_its_contenders() -> None:
    published = {case.name for case in MODEL_CASES if case.published}
    assert set(gpu.CASES) == published
    assert {*gpu.TABLE, *gpu.EAGER, *gpu.DRY} <= {contender.name for contender in CONTENDERS}


@pytest.mark.parametrize(("solver", "steps"), [("heun", 32), ("euler", 10), ("heun", 1)])
def test_a_fixed_plan_rectifies_a_fifth(solver: str, steps: int) -> None:
    rows = table(solver, schedules.EDM(), steps)
    modes = fixed_plan(rows).modes_for(rows)
    share = modes.count("reg") / len(modes)
    assert share == 1 if steps == 1 else abs(share - 0.2) < 0.05
    assert set(modes) <= {"reg", "cfg"}


def test_the_best_parameters_are_those_of_the_least_mean_ratio() -> None:
    assert tune.best([[1.0, 10.0], [2.0, 4.0], [0.9, 9.0]]) == 1  # sqrt(.8), .9
    assert tune.best([[1.0, 10.0], [0.99, 10.0]]) == 0  # noise
    assert tune.best([[1.0, 10.0], [1.5, 12.0]]) == 0


def test_a_damping_skips_references() -> None:
    rows = table("heun", schedules.EDM(), 8)
    weights = [damped()(row, rows) for row in rows.rows]
    assert 0.3 < sum(weight == 0 for weight in weights) / len(weights) < 0.7
    assert weights == sorted(weights) and weights[-1] > 1.9


def test_a_case_with_rows_of_this_commit_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REG_ENGINE_COMMIT", COMMIT)
    case = next(case for case in MODEL_CASES if case.name == "dit-xl-2-256")
    row = dict.fromkeys(records.COLUMNS, "") | {"case": case.name, "provider": "authors"}
    for commit in ("other", COMMIT[:12]):
        assert gpu.left(case, ["authors", "plain-cfg"], tmp_path) == ["authors", "plain-cfg"]
        records.append(tmp_path / "a.csv", [records.Row(**row | {"commit": commit})])
    assert gpu.left(case, ["authors", "plain-cfg"], tmp_path) == ["plain-cfg"]
