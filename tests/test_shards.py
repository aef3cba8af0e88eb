"""Finished work survives, other work is not mixed in, damage is done again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from reg_engine import InputError
from reg_engine.shards import Shards, check_writable


def test_round_trip_and_removal(tmp_path: Path) -> None:
    shards = Shards(tmp_path / "x.parts", {"scale": 2.0})
    samples = torch.randn(3, 4)
    shards.store("a", samples, {"nfe": 7.0})
    kept, note = Shards(tmp_path / "x.parts", {"scale": 2.0}).load("a")
    assert torch.equal(kept, samples) and note == {"nfe": 7.0}
    assert shards.load("b") is None
    shards.remove()
    assert not (tmp_path / "x.parts").exists()


def test_other_settings_are_refused(tmp_path: Path) -> None:
    first = Shards(tmp_path / "x.parts", {"scale": 2.0})
    assert not (tmp_path / "x.parts").exists(), "nothing is done yet"
    first.store("a", torch.zeros(1), {})
    with pytest.raises(InputError, match="other settings"):
        Shards(tmp_path / "x.parts", {"scale": 3.0})


def test_damaged_batch_counts_as_missing(tmp_path: Path) -> None:
    shards = Shards(tmp_path / "x.parts", {})
    shards.store("a", torch.zeros(100), {})
    path = tmp_path / "x.parts" / "a.npz"
    path.write_bytes(path.read_bytes()[:60])
    assert shards.load("a") is None
    shards.store("a", torch.ones(2), {})
    assert shards.load("a")[0].tolist() == [1, 1]


def test_unwritable_paths_are_said_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "x.png", tmp_path):
        with pytest.raises(InputError, match="out"):
            check_writable(path)
    assert check_writable(tmp_path / "new" / "x.png") == tmp_path / "new" / "x.png"
    assert os.listdir(tmp_path / "new") == []
