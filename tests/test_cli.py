"""The command line as a person meets it: output, files, exit codes, and going on after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import reg_engine
from reg_engine import InputError
from reg_engine.cli import cli

COMMANDS = ("sample", "calibrate", "train", "evaluate", "profile", "doctor")
FAST = ["--steps", "3", "--labels", "0-3", "--no-progress"]


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The installed command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "reg_engine.cli", *arguments],
        cwd=cwd,
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_and_json(command: str) -> None:
    out = CliRunner().invoke(cli, [command, "--help"]).output
    assert f"Example: reg-engine {command}" in out
    assert "--json" in out


def test_sample_to_archive_equals_the_library(tmp_path: Path) -> None:
    target = tmp_path / "s.npz"
    result = CliRunner().invoke(
        cli,
        ["sample", *FAST, "--scale", "3", "--rectify", "fd", "--out", str(target), "--json"],
        catch_exceptions=False,
    )
    report = json.loads(result.output)
    data = np.load(target)
    wanted = reg_engine.sample(
        reg_engine.load_model("mnist"),
        [0, 1, 2, 3],
        scale=3.0,
        rectify="fd",
        steps=3,
        progress=False,
    )
    assert np.array_equal(data["samples"], wanted.samples.numpy())
    assert data["labels"].tolist() == data["seeds"].tolist() == [0, 1, 2, 3]
    assert report["methods"]["REG"]["nfe"] == wanted.stats.nfe == 15
    assert 0 <= report["methods"]["REG"]["label_agreement"] <= 1
    assert os.listdir(tmp_path) == ["s.npz"]


def test_compare_draws_both_and_says_what_they_cost(tmp_path: Path) -> None:
    target = tmp_path / "c.png"
    result = CliRunner().invoke(
        cli, ["sample", *FAST, "--compare", "--out", str(target)], catch_exceptions=False
    )
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[1].startswith("CFG") and lines[2].startswith("REG") and "alternate" in lines[2]
    with Image.open(target) as image:
        assert image.width > 2 * 4 * 28
        notes = image.text
    assert notes["Command"] == (
        "reg-engine sample --steps 3 --no-progress --labels 0-3 --out c.png --compare"
    )
    assert notes["Software"].startswith(f"reg_engine {reg_engine.__version__}, torch ")
    made = json.loads(notes["reg_engine"])
    assert (made["labels"], made["seeds"]) == ([0, 1, 2, 3], [0, 1, 2, 3])
    methods = {"CFG": [4.0, None], "REG": [4.0, "auto"]}
    assert (made["scale"], made["methods"]) == (4.0, methods)
    assert (made["steps"], made["solver"], made["plan"]["modes"]) == (3, "heun", ["reg"])
    assert str(tmp_path) not in str(notes)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--labels", "0-10"], "out of range"),
        (["--labels", "a"], "--labels"),
        (["--scale", "-1"], "scale"),
        (["--scale", "nan"], "scale"),
        (["--steps", "0"], "steps"),
        (["--solver", "huen"], "heun"),
        (["--rectify", "vpj"], "vjp"),
        (["--model", "nope"], "mnist"),
        (["--plan", "missing.json"], "plan"),
        (["--out", "/proc/no/x.png"], "--out"),
        (["--out", "x.gif"], ".png"),
        (["--seeds", "0-1"], "seeds"),
        (["--per-label", "0"], "per-label"),
        (["--device", "cuda:99"], "device"),
        (["--batch-size", "0"], "batch_size"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    base = ["sample", "--steps", "2", "--labels", "0-3", "--no-progress"]
    # In process: starting Python for every case would take a minute.
    result = CliRunner().invoke(cli, [*base, *arguments])
    assert isinstance(result.exception, reg_engine.RegEngineError), result.output
    assert says in str(result.exception) and "\n" not in str(result.exception)
    assert os.listdir(tmp_path) == []


def test_errors_reach_the_shell_without_a_traceback(tmp_path: Path) -> None:
    result = run("sample", "--scale", "-3", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: scale: is -3.0") and "Traceback" not in result.stderr
    assert os.listdir(tmp_path) == []
    assert run("sample", "--scael", "3", cwd=tmp_path).returncode == 2


def test_killed_sample_goes_on_where_it_was(tmp_path: Path) -> None:
    target = tmp_path / "k.npz"
    arguments = ["sample", "--steps", "6", "--labels", "0-9", "--per-label", "1"]
    arguments += ["--batch-size", "2", "--scale", "2.0", "--rectify", "vjp"]
    arguments += ["--no-progress", "--out", str(target)]
    process = subprocess.Popen(
        [sys.executable, "-m", "reg_engine.cli", *arguments],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    parts = tmp_path / "k.npz.parts"
    deadline = time.monotonic() + 120
    while len(list(parts.glob("*.npz"))) < 2 and time.monotonic() < deadline:
        assert process.poll() is None, "finished before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {p.name: p.stat().st_mtime_ns for p in parts.glob("*.npz")}
    assert len(kept) >= 2 and not target.exists()
    with pytest.raises(InputError, match="other settings"):
        other = [a if a != "2.0" else "3.0" for a in arguments]
        CliRunner().invoke(cli, other, catch_exceptions=False)
    assert {p.name: p.stat().st_mtime_ns for p in parts.glob("*.npz")} == kept
    result = run(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["methods"]["REG"]["samples"] == 10
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the command's processes: the order of sums is theirs
    whole = reg_engine.sample(
        reg_engine.load_model("mnist"), list(range(10)), seeds=range(10), scale=2.0,
        rectify="vjp", steps=6, batch_size=2, progress=False,
    )  # fmt: skip
    torch.set_num_threads(threads)
    assert np.array_equal(np.load(target)["samples"], whole.samples.numpy())
    assert not parts.exists()


def test_calibrate_writes_a_plan_that_sample_takes(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    result = CliRunner().invoke(
        cli,
        ["calibrate", *FAST, "--tolerance", "0.1", "--out", str(plan), "--json"],
        catch_exceptions=False,
    )
    report = json.loads(result.output)
    assert report["measured_deviation"] <= 0.1 and report["cost"] <= report["cost_full"] == 15
    again = CliRunner().invoke(
        cli,
        [
            "sample",
            *FAST,
            "--rectify",
            "vjp",
            "--plan",
            str(plan),
            "--out",
            str(tmp_path / "s.npz"),
            "--json",
        ],
        catch_exceptions=False,
    )
    modes = json.loads(again.output)["methods"]["REG"]["modes"]
    assert sum({"cond": 1, "cfg": 2, "reg": 3}[m] * n for m, n in modes.items()) == report["cost"]


def test_doctor_tries_every_estimator() -> None:
    report = json.loads(
        CliRunner().invoke(cli, ["doctor", "--json"], catch_exceptions=False).output
    )
    assert report["estimators"]["cpu"] == {
        **dict.fromkeys(reg_engine.RECTIFIERS, "works"),
        "auto": report["estimators"]["cpu"]["auto"],
    }
    assert report["estimators"]["cpu"]["auto"].startswith("works (alternate")
    assert report["packages"]["torch"]
    assert "than float32 on this processor" in report["precision"]
    assert {"cpu", "cuda", "rocm", "xpu", "mps"} <= {
        name.split(":")[0] for name in report["devices"]
    }
    assert set(report["known"]) == {"cuda", "rocm", "xpu", "mps"}
    assert all("unmeasured" in report["known"][name] for name in ("rocm", "xpu", "mps"))


def test_train_says_an_unwritable_folder_before_it_starts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "run", Path("/proc/no/run")):
        result = CliRunner().invoke(cli, ["train", "mnist", "--data", "missing", "--out", str(out)])
        assert isinstance(result.exception, reg_engine.InputError), result.output
        assert result.exception.argument == "--out"
