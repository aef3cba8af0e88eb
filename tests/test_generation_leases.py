"""Leases: one has it, the living keep it whatever a clock says, and the lost lose it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reg_engine import InputError
from reg_engine.generation import leases as module
from reg_engine.generation.leases import Leases


class Clock:
    """time.monotonic by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(module.time, "monotonic", found)
    return found


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Leases, Leases]]:
    """Two workers whose threads touch nothing within a test."""
    found = Leases(tmp_path, 1e6), Leases(tmp_path, 10.0)
    yield found
    for each in found:
        each.close()


def test_one_has_it(pair: tuple[Leases, Leases], tmp_path: Path) -> None:
    one, two = pair
    assert one.take("000001") and not two.take("000001") and two.take("000002")
    assert json.loads((tmp_path / "000001").read_text())["token"] == one.token
    two.drop("000001")  # not its own
    assert not two.take("000001")
    one.drop("000001")
    assert two.take("000001")


def test_of_many_at_once_one_has_it(tmp_path: Path) -> None:
    everyone = [Leases(tmp_path, 1e6) for _ in range(16)]
    gate, taken = threading.Barrier(16), []

    def go(each: Leases) -> None:
        gate.wait()
        taken.append(each.take("000007"))

    threads = [threading.Thread(target=go, args=(each,)) for each in everyone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken.count(True) == 1
    for each in everyone:
        each.close()


def test_a_silent_one_loses_it(pair: tuple[Leases, Leases], clock: Clock) -> None:
    one, two = pair
    assert one.take("a") and not two.take("a")  # seen now for the first time
    clock.now += 9.9
    assert not two.take("a")
    clock.now += 0.2
    assert two.take("a")
    one.drop("a")  # gives back what is no longer its own
    assert not one.take("a")


def test_a_touch_keeps_it_whatever_time_it_says(
    pair: tuple[Leases, Leases], clock: Clock, tmp_path: Path
) -> None:
    """A file server's clock, or a machine's, that jumps by an hour changes nothing."""
    one, two = pair
    assert one.take("a") and not two.take("a")
    for jump in (3600, -3600, 7200, 0):
        clock.now += 9
        stamp = time.time() + jump
        os.utime(tmp_path / "a", (stamp, stamp))
        assert not two.take("a")
    clock.now += 11
    assert two.take("a")


def test_the_living_touch(tmp_path: Path) -> None:
    one = Leases(tmp_path, 0.02)
    assert one.take("a")
    os.utime(tmp_path / "a", (1, 1))
    deadline = time.monotonic() + 20
    while os.stat(tmp_path / "a").st_mtime < 2:
        assert time.monotonic() < deadline
    one.close()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"garbage", b"[3]", b'{"pid": "x"}', b"\xff" * 100])
def test_garbage_expires_like_any_other(
    pair: tuple[Leases, Leases], clock: Clock, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "a").write_bytes(content)
    assert not pair[1].take("a")
    clock.now += 10
    assert pair[1].take("a")


def test_a_folder_in_its_place_is_said_and_stays(
    pair: tuple[Leases, Leases], tmp_path: Path
) -> None:
    (tmp_path / "000001" / "x").mkdir(parents=True)
    for _ in range(2):
        with pytest.raises(InputError, match="000001 is a folder"):
            pair[0].take("000001")
    assert os.listdir(tmp_path / "000001") == ["x"]


def test_who_died_here_loses_it_at_once(pair: tuple[Leases, Leases], tmp_path: Path) -> None:
    if not module._place():
        pytest.skip("this system does not say which start of which machine it is")
    code = [sys.executable, "-c", "import os; print(os.getpid())"]
    child = subprocess.run(code, capture_output=True, text=True, check=True)
    note = {"token": "x", "pid": int(child.stdout), "place": module._place()}
    changes = [({}, True), ({"place": "elsewhere"}, False), ({"pid": os.getpid()}, False)]
    changes += [({"pid": bad}, False) for bad in (0, -1, True, "x", 2**40)]
    for change, lost in changes:
        name = f"{len(os.listdir(tmp_path))}"
        (tmp_path / name).write_text(json.dumps({**note, **change}))
        assert pair[1].take(name) is lost, change


def test_seconds_that_are_none(tmp_path: Path) -> None:
    for bad in (0, -1, float("nan"), float("inf"), "1"):
        with pytest.raises(InputError, match="expiry"):
            Leases(tmp_path, bad)  # type: ignore[arg-type]
