"""Finished work survives, other work is not mixed in, damage is done again."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from reg_engine import InputError
from reg_engine.storage.shards import Shards


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


def archive(path: Path, **arrays: object) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


NOTE = np.frombuffer(b"{}", np.uint8)


@pytest.mark.parametrize(
    "arrays",
    [
        {"samples": np.zeros((2, 3), np.float32), "note": NOTE},  # another shape
        {"samples": np.array([1.0, np.nan]), "note": NOTE},
        {"samples": np.array([1.0, np.inf]), "note": NOTE},
        {"samples": np.array([1, 2]), "note": NOTE},
        {"samples": np.array(["a", "b"]), "note": NOTE},
        {"samples": np.zeros(2, ">f4"), "note": NOTE},
        {"samples": np.zeros(2)},
        {"samples": np.zeros(2), "note": np.frombuffer(b"[1]", np.uint8)},
        {"samples": np.zeros(2), "note": np.frombuffer(b"{", np.uint8)},
        {"samples": np.zeros(2), "note": np.frombuffer(b"[" * 100_000, np.uint8)},
    ],
)
def test_a_batch_that_does_not_fit_counts_as_missing(
    arrays: dict[str, object], tmp_path: Path
) -> None:
    shards = Shards(tmp_path / "x.parts", {})
    shards.store("a", torch.zeros(2), {})
    assert shards.load("a", (2,)) is not None
    archive(tmp_path / "x.parts" / "a.npz", **arrays)
    assert shards.load("a", (2,)) is None
    shards.store("a", torch.ones(2), {})
    assert shards.load("a", (2,))[0].tolist() == [1, 1]


def test_foreign_files_stay_where_they_are(tmp_path: Path) -> None:
    parts, victim = tmp_path / "x.parts", tmp_path / "victim"
    parts.mkdir()
    victim.write_bytes(b"precious")
    (parts / "mine.npz").write_bytes(b"mine")
    (parts / "a.npz.part").symlink_to(victim)
    (parts / "b.npz").symlink_to(victim)
    shards = Shards(parts, {})
    shards.store("a", torch.zeros(1), {})
    shards.store("b", torch.zeros(1), {})
    shards.remove()
    assert sorted(os.listdir(parts)) == ["a.npz.part", "mine.npz"]
    assert (parts / "mine.npz").read_bytes() == b"mine" and victim.read_bytes() == b"precious"


def test_batches_of_an_earlier_run_go_too(tmp_path: Path) -> None:
    Shards(tmp_path / "x.parts", {}).store("a", torch.zeros(1), {})
    again = Shards(tmp_path / "x.parts", {})
    assert again.load("a") is not None
    again.remove()
    assert os.listdir(tmp_path) == []


def test_a_link_or_a_file_in_the_folders_place_is_said_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "x.parts").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "y.parts").write_text("")
    for name in ("x.parts", "y.parts"):
        with pytest.raises(InputError, match="is a link or no folder"):
            Shards(tmp_path / name, {})
    assert os.listdir(tmp_path / "elsewhere") == []


@pytest.mark.parametrize("content", [b"", b"[1]", b"{}", b"[" * 100_000, b'{"key": 3}'])
def test_damaged_settings_are_other_settings(content: bytes, tmp_path: Path) -> None:
    Shards(tmp_path / "x.parts", {}).store("a", torch.zeros(1), {})
    (tmp_path / "x.parts" / "settings.json").write_bytes(content)
    with pytest.raises(InputError, match="other settings"):
        Shards(tmp_path / "x.parts", {})


def test_settings_may_be_long(tmp_path: Path) -> None:
    settings = {"seeds": list(range(300_000))}
    Shards(tmp_path / "x.parts", settings).store("a", torch.zeros(1), {})
    assert Shards(tmp_path / "x.parts", settings).load("a") is not None


def test_every_value_of_the_settings_counts_exactly(tmp_path: Path) -> None:
    labels = torch.arange(5000)
    settings = {"labels": labels, "scale": 3.0}
    Shards(tmp_path / "x.parts", settings).store("a", torch.zeros(1), {})
    Shards(tmp_path / "x.parts", {"scale": 3.0, "labels": labels.clone()})
    other = labels.index_fill(0, torch.tensor([2500]), 0)  # where a printed tensor has dots
    for change in ({"labels": other}, {"scale": math.nextafter(3.0, 4)}):
        with pytest.raises(InputError, match="other settings"):
            Shards(tmp_path / "x.parts", {**settings, **change})
