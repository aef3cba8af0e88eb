"""Stopped commands: what they say is kept, and that they go on with nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import reg_engine
from reg_engine.cli import cli


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """As mnist.npz, small and random."""
    rng = np.random.default_rng(0)
    arrays = {
        f"{key}_{part}": values
        for part in ("train", "test")
        for key, values in (
            ("x", rng.integers(0, 256, (200, 28, 28), dtype=np.uint8)),
            ("y", rng.integers(0, 10, 200, dtype=np.uint8)),
        )
    }
    np.savez(tmp_path / "mnist.npz", **arrays)
    return tmp_path / "mnist.npz"


def stop_at(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Ctrl-C in that call of Engine.sample, counted from 1."""
    whole, calls = reg_engine.Engine.sample, []

    def counted(self, *arguments):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return whole(self, *arguments)

    monkeypatch.setattr(reg_engine.Engine, "sample", counted)


def evaluate(folder: Path, data: Path, *more: str) -> Result:
    command = ["evaluate", "--data", str(data), "--out", str(folder / "e"), "--samples", "20"]
    command += ["--steps", "1", "--solver", "euler", "--batch-size", "10", "--no-progress"]
    return CliRunner().invoke(cli, [*command, "--rectify", "fd", "--scales", "2", *more])


def test_evaluate_does_not_mix_two_plans(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tmp_path / "plan.json"
    reg_engine.Plan.full().save(plan)
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        stopped = evaluate(tmp_path, data, "--plan", str(plan))
    assert "finished work is kept in" in stopped.output
    kept = {p.name: p.read_bytes() for p in (tmp_path / "e.parts").iterdir()}
    assert set(kept) == {"settings.json", "fd-2.0-00000.npz"}
    reg_engine.Plan.interval(0.1, 0.2).save(plan)
    # A new scale comes first: that is not begun either.
    refused = evaluate(tmp_path, data, "--plan", str(plan), "--scales", "1.5,2")
    assert isinstance(refused.exception, reg_engine.InputError)
    assert "other settings" in str(refused.exception)
    assert {p.name: p.read_bytes() for p in (tmp_path / "e.parts").iterdir()} == kept
    reg_engine.Plan.full().save(plan)
    done = evaluate(tmp_path, data, "--plan", str(plan))
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "e.parts").exists()


def test_evaluate_keeps_near_scales_apart(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(monkeypatch, 4)
    evaluate(tmp_path, data, "--scales", "3,3.0000001")
    names = {path.name for path in (tmp_path / "e.parts").glob("*.npz")}
    done = {"fd-3.0-00000.npz", "fd-3.0-00001.npz", "fd-3.0-effective.npz"}
    assert names == done | {"fd-3.0000001-00000.npz"}


@pytest.mark.parametrize("call", [1, 2])
def test_a_stop_says_truly_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    stop_at(monkeypatch, call)
    command = ["sample", "--labels", "0-3", "--steps", "1", "--batch-size", "2", "--no-progress"]
    result = CliRunner().invoke(cli, [*command, "--out", str(tmp_path / "s.npz")])
    parts = tmp_path / "s.npz.parts"
    if call == 1:
        assert result.stderr.splitlines()[0] == "stopped: finished work is not kept"
        assert not parts.exists()
    else:
        assert f"finished work is kept in {parts}; the same command" in result.stderr
        assert len(list(parts.glob("*.npz"))) == 1
