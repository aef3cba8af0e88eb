"""A shard's writing: bounded while the disk is slow, and over when an error is told."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from generation_cases import Numbers, job, opened

from reg_engine import InputError
from reg_engine.generation import making

WHAT = job(200, batch_size=4, shard_size=200)


def slow(monkeypatch: pytest.MonkeyPatch, seconds: float) -> list[int]:
    """Writing takes long; what is being written is counted."""
    write, lock, going = making._write, threading.Lock(), [0, 0]

    def late(*given):  # type: ignore[no-untyped-def]
        with lock:
            going[0] += 1
        time.sleep(seconds)
        try:
            return write(*given)
        finally:
            with lock:
                going[0] -= 1
                going[1] += 1

    monkeypatch.setattr(making, "_write", late)
    return going


def test_sampling_waits_for_a_slow_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "_PENDING", 10)
    going, ahead = slow(monkeypatch, 0.005), []
    sampler = Numbers(before=lambda seeds: ahead.append(seeds[0] - going[1]))
    made = making.make(sampler, opened(tmp_path / "o", WHAT), WHAT.shard(0), 4, "stop")
    assert made.images == going[1] == 200 and len(made.files) == 200
    # Those that may wait, and those written but not yet counted; without a bound nearly all.
    assert max(ahead) <= 10 + making._WRITERS + 4


def test_after_an_error_nothing_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what was begun nor what waited: the lease is given back right after."""
    going = slow(monkeypatch, 0.05)

    def fail(seeds: list[int]) -> None:
        if seeds[0] == 40:
            raise RuntimeError("something else")

    records = opened(tmp_path / "o", WHAT)
    with pytest.raises(RuntimeError, match="something else"):
        making.make(Numbers(before=fail), records, WHAT.shard(0), 4, "stop")
    assert going[0] == 0 and going[1] <= 2 * making._WRITERS
    before = going[1]
    time.sleep(0.15)
    assert going[1] == before and records.read("000000") is None


def test_a_write_that_fails_is_told_before_the_shard_is_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "_PENDING", 8)

    def full(*given: object) -> None:
        raise InputError("out", "is full", "Free space")

    monkeypatch.setattr(making, "_write", full)
    sampler = Numbers()
    with pytest.raises(InputError, match="is full"):
        making.make(sampler, opened(tmp_path / "o", WHAT), WHAT.shard(0), 4, "stop")
    assert len(sampler.batches) == 3
