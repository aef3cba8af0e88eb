"""What a training run leaves behind when something breaks: logs, checkpoints, full disks."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import tiny
from torch import Tensor

from reg_engine.errors import InputError


def _log(folder: Path) -> list[str]:
    """loss.csv without the columns that hold times."""
    return [line.rsplit(",", 2)[0] for line in (folder / "loss.csv").read_text().splitlines()]


def test_a_resumed_runs_log_is_that_of_an_uninterrupted_one(tmp_path: Path) -> None:
    tiny(tmp_path / "whole", steps=30).run()
    for until in (5, 16, 17, None):
        tiny(tmp_path / "parts", steps=30).run(until)
    assert _log(tmp_path / "whole") == _log(tmp_path / "parts")
    assert len(_log(tmp_path / "whole")) == 1 + 5


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (lambda log: log[:-20], ["7"]),  # the last row is cut
        (lambda log: log + b"21,0.1,x,0,0,0\r\n", ["7", "14"]),
        (lambda log: log + b"\xff\xfe\0,\x80", ["7", "14"]),
        (lambda log: log + log, ["7", "14"]),  # no row twice
        (lambda log: log + b"15,0.1,nan,0,0,0\r\n15,0.1\r\n", ["7", "14"]),
        (lambda log: b"\xff" * 1000, []),
        (lambda log: b"", []),
    ],
)
def test_a_damaged_log_costs_its_rows_alone(
    damage: Callable[[bytes], bytes], kept: list[str], tmp_path: Path
) -> None:
    tiny(tmp_path).run(16)
    log = tmp_path / "loss.csv"
    log.write_bytes(damage(log.read_bytes()))
    trainer = tiny(tmp_path)
    assert trainer.step == 16
    trainer.run(21)
    assert [line.split(",")[0] for line in _log(tmp_path)] == ["step", *kept, "21"]


def test_the_log_is_never_half_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny(tmp_path).run(16)
    before = (tmp_path / "loss.csv").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="No space left.*Free space"):
        tiny(tmp_path).run(21)
    assert (tmp_path / "loss.csv").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["checkpoint.pt", "loss.csv"]


def _without(key: str) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        state["average"].pop(next(iter(state["average"]))) if key == "one" else state.pop(key)

    return change


def _set(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.update({key: value})


def _first(part: str, value: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        name = next(iter(state[part]))
        state[part][name] = value(state[part][name])

    return change


def _moments(state: dict[str, Any]) -> None:
    state["optimizer"]["state"][0]["exp_avg"] = torch.zeros(3)


@pytest.mark.parametrize(
    "change",
    [
        _without("average"),
        _without("one"),
        _without("rng"),
        _first("average", lambda v: v[:1]),  # would be broadcast
        _first("average", lambda v: v * math.nan),
        _first("net", lambda v: v * math.inf),
        _first("net", lambda v: v.flatten()[:1]),
        _set("average", {"a": 1}),
        _set("step", 61),
        _set("step", -1),
        _set("step", "2"),
        _set("seconds", math.nan),
        _set("optimizer", {}),
        _set("optimizer", {"state": {}}),
        _set("optimizer", {"state": {0: {"exp_avg": 3}}}),
        _set("rng", torch.zeros(3)),
        _set("losses", "abc"),
        _set("losses", 3),
        _moments,
    ],
)
def test_a_checkpoint_that_lacks_something_is_refused(
    change: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    tiny(tmp_path).run(2)
    path = tmp_path / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    with pytest.raises(InputError, match="checkpoint: .*Delete it to start anew"):
        tiny(tmp_path)


def test_a_checkpoint_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """Without the losses since the last row: that row averages fewer steps."""
    tiny(tmp_path).run(2)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["losses"]
    torch.save(state, tmp_path / "checkpoint.pt")
    assert tiny(tmp_path).step == 2


def test_a_full_disk_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's writer turns the error into one of its own; the reason must come through."""
    trainer = tiny(tmp_path)
    trainer.run(2)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    opened = Path.open

    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() + len(data) > 20_000:
                raise OSError(27, "File too large")
            return super().write(data)

    monkeypatch.setattr(
        Path, "open", lambda p, mode: Full(p, mode) if mode == "xb" else opened(p, mode)
    )
    with pytest.raises(InputError, match="checkpoint: .*File too large.*Free space"):
        trainer.save()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["checkpoint.pt", "loss.csv"]
