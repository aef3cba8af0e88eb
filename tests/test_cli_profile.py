"""`reg-engine profile` as a person meets it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import reg_engine
from reg_engine.cli import cli

FAST = ["--steps", "3", "--labels", "0-3", "--no-progress", "--warmup", "0"]


def profile(*arguments: str) -> str:
    return CliRunner().invoke(cli, ["profile", *arguments], catch_exceptions=False).stdout


def report(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(profile(*arguments, "--json"))
    return found


def test_help_shows_an_example_and_json() -> None:
    out = profile("--help")
    assert "Example: reg-engine profile" in out and "--json" in out


@pytest.mark.parametrize(
    ("rectify", "before", "below"),
    [
        (
            "vjp",
            {"check": 1, "check/cond": 7},  # an answer, two differences, two pullbacks
            {"rectifier": 5, "rectifier/cond": 5, "rectifier/ref": 5},
        ),
        (
            "fd",
            {"check": 1, "check/cond": 3},  # how finely the network computes
            {"rectifier": 5, "rectifier/cond_ref": 5, "rectifier/cond": 5},
        ),
        ("none", {}, {"cond_ref": 5}),
    ],
)
def test_ranges_of_a_call(
    tmp_path: Path, rectify: str, before: dict[str, int], below: dict[str, int]
) -> None:
    found = report(*FAST, "--rectify", rectify, "--out", str(tmp_path))
    calls = {"/".join(row["path"]): row["calls"] for row in found["ranges"]}
    # three Heun steps are five evaluations: the last step is an Euler step
    assert calls == {
        "profile": 1,
        **{f"profile/{path}": count for path, count in before.items()},
        "profile/plan": 1,
        "profile/evaluate": 5,
        **{f"profile/evaluate/{path}": count for path, count in below.items()},
        "profile/guided_step": 5,
        "profile/decode": 1,
    }
    total = sum(row["own"] for row in found["ranges"])
    assert total == pytest.approx(found["ranges"][0]["total"])
    assert found["tool"] is None and found["undisturbed_seconds"] is None
    assert found["stats"]["samples"] == 4
    assert os.listdir(tmp_path) == ["trace.json"] and found["trace"] == str(tmp_path / "trace.json")


def test_command_line_repeats_this_very_invocation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a folder's"
    arguments = [*FAST, "--rectify", "fd", "--scale", "2.5", "--per-label", "2"]
    arguments += ["--attention", "math", "--no-graphs", "--out", str(folder)]
    found = report(*arguments)
    line = shlex.split(found["commands"]["nsys"])
    again = line[line.index("profile", line.index("-m")) :]
    assert again.count("--json") == 0 and "ncu" not in found["commands"]
    monkeypatch.setenv("NSYS_PROFILING_SESSION_ID", "1")
    result = CliRunner().invoke(cli, [*again, "--json"], catch_exceptions=False)
    under = json.loads(result.stdout)
    assert under["tool"] == "Nsight Systems" and under["ranges"] == []
    for name in ("samples", "nfe", "estimator", "modes"):
        assert under["stats"][name] == found["stats"][name]
    assert under["stats"]["samples"] == 8 and under["commands"] == found["commands"]


def test_text_has_the_table_the_files_and_what_to_run(tmp_path: Path) -> None:
    out = profile(*FAST, "--warmup", "1", "--rectify", "vjp", "--plot", "--out", str(tmp_path))
    lines = out.splitlines()
    assert lines[0].startswith("4 samples, nfe 10, 5 backward, estimator vjp")
    assert "unwatched" in lines[1] and "under torch.profiler" in lines[2]
    header = next(line for line in lines if line.lstrip().startswith("range "))
    assert " ".join(header.split()) == "range calls total ms share own ms Python ms"
    indents = {line.split()[0]: len(line) - len(line.lstrip()) for line in lines if line.strip()}
    assert indents["evaluate"] > indents["profile"] and indents["cond"] > indents["rectifier"]
    assert f"picture: {tmp_path}/profile.png" in lines and f"trace: {tmp_path}/trace.json" in lines
    assert "not under Nsight; to run this under it:" in lines
    assert sorted(os.listdir(tmp_path)) == ["profile.png", "trace.json"]
    assert max(map(len, (line for line in lines if "nsys profile" not in line))) <= 100


def test_under_nsight_it_says_so_and_writes_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NSYS_PROFILING_SESSION_ID", "1")
    lines = profile(*FAST, "--plot", "--out", str(tmp_path)).splitlines()
    assert len(lines) == 2 and "under Nsight Systems" in lines[1]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--steps", "0"], "steps"),
        (["--warmup", "-1"], "--warmup"),
        (["--per-label", "0"], "--per-label"),
        (["--labels", "0-12"], "out of range"),
        (["--solver", "huen"], "heun"),
        (["--rectify", "vpj"], "vjp"),
        (["--attention", "flahs"], "flash"),
        (["--attention", "xformers"], "xformers has no cpu kernels"),
        (["--graphs"], "CUDA"),
        (["--device", "cuda:99"], "device"),
        (["--out", "/proc/no"], "--out"),
    ],
)
def test_bad_input_is_one_line_before_anything_runs(
    tmp_path: Path, arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["profile", *FAST, *arguments])
    assert isinstance(result.exception, reg_engine.RegEngineError), result.output
    assert says in str(result.exception) and "\n" not in str(result.exception)
    assert not list(tmp_path.rglob("*.json"))


def test_without_matplotlib_a_plot_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = CliRunner().invoke(cli, ["profile", *FAST, "--plot", "--out", str(tmp_path / "x")])
    assert isinstance(result.exception, reg_engine.InputError)
    assert "matplotlib" in str(result.exception) and os.listdir(tmp_path) == []


def test_errors_reach_the_shell(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "reg_engine.cli", "profile", "--warmup", "-2"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(reg_engine.__file__).parents[1])},
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: --warmup: is -2") and "Traceback" not in result.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.gpu
def test_on_a_gpu_the_kernels_of_the_backward_pass_are_counted(tmp_path: Path) -> None:
    found = report(
        *FAST, "--warmup", "1", "--rectify", "vjp", "--device", "cuda", "--out", str(tmp_path)
    )
    device = {row["path"][-1]: row["device"] for row in found["ranges"]}
    assert 0 < device["evaluate"] <= device["profile"]
    # autograd launches from a thread of its own; the backward pass costs about a forward one
    backward = device["rectifier"] - device["cond"] - device["ref"]
    assert backward > 0.3 * device["cond"]
    assert list(found["commands"]) == ["nsys", "ncu"]


@pytest.mark.gpu
def test_on_a_gpu_graphs_are_replayed(tmp_path: Path) -> None:
    found = report(
        *FAST,
        "--warmup",
        "2",
        "--rectify",
        "vjp",
        "--device",
        "cuda",
        "--graphs",
        "--out",
        str(tmp_path),
    )
    assert found["stats"]["capture"] == "captured"
    calls = {row["path"][-1]: row["calls"] for row in found["ranges"]}
    assert calls["replay"] == 5 and "evaluate" not in calls
