"""SIGTERM: the shard in hand is finished within its time, or dropped with its lease; 143."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from generation_cases import Numbers, job, opened

from reg_engine import InputError
from reg_engine.generation import generate
from reg_engine.generation.grace import Grace


def terminated(out: Path, seconds: float, slow: bool) -> list[int]:
    """A SIGTERM in the second shard, which then takes long, or not."""

    def before(seeds: list[int]) -> None:
        if seeds[0] == 8:
            os.kill(os.getpid(), signal.SIGTERM)
            deadline = time.monotonic() + 20 * slow
            while time.monotonic() < deadline:
                pass

    found = []
    with pytest.raises(SystemExit) as left, Grace(seconds) as stop:
        for shard in generate(Numbers(before=before), job(), out, stop=stop):
            found.append(shard.number)
    assert left.value.code == 143
    assert os.listdir(out / "leases") == []
    return found


def test_there_is_time(tmp_path: Path) -> None:
    assert terminated(tmp_path / "o", 30, slow=False) == [0, 1]
    assert opened(tmp_path / "o").missing() == [2, 3]


@pytest.mark.parametrize("seconds", [0, 0.05])
def test_there_is_none(tmp_path: Path, seconds: float) -> None:
    assert terminated(tmp_path / "o", seconds, slow=True) == [0]
    assert opened(tmp_path / "o").missing() == [1, 2, 3]


def test_a_second_one_ends_at_once() -> None:
    with pytest.raises(SystemExit), Grace(1000) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_without_one_nothing_changes() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGALRM)
    with Grace(5) as stop:
        assert not stop()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGALRM)) == before
    for bad in (-1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="grace"):
            Grace(bad)
