"""kill -9 at random moments, over and over: what is left at the end is that of undisturbed runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

TESTS = Path(__file__).resolve().parent
KILLS = 20


def _tree(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def _timeless(value: Any) -> Any:
    """A JSON value without what a clock said."""
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if "seconds" not in k}
    return [_timeless(part) for part in value] if isinstance(value, list) else value


def _content(path: Path) -> Any:
    """What two files must have in common: bytes, but for the times that some of them hold."""
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_bytes()))
    if path.suffix == ".npz":
        return {k: v.tobytes() for k, v in np.load(path).items()}
    if path.suffix == ".pt":
        state = torch.load(path, weights_only=True)
        parts = {**state["net"], **{f"average.{k}": v for k, v in state["average"].items()}}
        moments = state["optimizer"]["state"]
        parts |= {f"{n}.{k}": v for n, kept in moments.items() for k, v in kept.items()}
        weights = {k: v.numpy().tobytes() for k, v in parts.items()}
        return weights, state["step"], state["losses"], state["config"]
    if path.suffix == ".csv":
        return [line.rsplit(",", 2)[0] for line in path.read_text().splitlines()]
    if path.suffix == ".md":
        return [line for line in path.read_text().splitlines() if " s on " not in line]
    return path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sample", "train", "evaluate", "experiment"])
def test_a_killed_run_ends_as_an_undisturbed_one(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(TESTS / "kill_runs.py"), name, str(tmp_path), str(KILLS), "0"]
    done = subprocess.run(
        command,
        cwd=TESTS,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS.parent)},
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    assert done.stdout.startswith(f"{name}: {KILLS} kills")
    written = int(done.stdout.split(", ")[1].split()[0])
    assert written >= KILLS // 4, done.stdout
    whole = tmp_path / "whole"
    runs = sorted(tmp_path.glob("killed-*"))
    assert runs
    for run in runs:
        assert _tree(run) == _tree(whole)
        for file in _tree(whole):
            if (whole / file).is_file():
                assert _content(run / file) == _content(whole / file), file
