"""Blocks of vectors: the same whatever the batches, the threads and the stops."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scoring_cases import network, pixels, project, write_pictures
from torch import Tensor

from reg_engine import InputError
from reg_engine.scoring import Extraction, Tensors, open_images
from reg_engine.scoring import extract as door
from reg_engine.scoring.extract import Block, extract, extract_batches
from reg_engine.storage.shards import Shards

IMAGES = pixels(100)
WHOLE = project(torch.from_numpy(IMAGES).permute(0, 3, 1, 2))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "BLOCK", 24)


def ask(images: Tensor, numbers: Sequence[int]) -> Any:
    assert len(images) == len(numbers)
    return network()(images)


def joined(blocks: list[Block]) -> tuple[Tensor, Tensor]:
    logits = [b.logits for b in blocks if b.logits is not None]
    return torch.cat([b.features for b in blocks]), torch.cat(logits)


@pytest.mark.parametrize("batch_size", [1, 7, 24, 1000])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_and_workers_do_not_show(tmp_path: Path, batch_size: int, workers: int) -> None:
    write_pictures(tmp_path / "p", IMAGES)
    np.savez_compressed(tmp_path / "a.npz", IMAGES)
    for path in ("p", "a.npz"):
        source = open_images(tmp_path / path)
        blocks = list(extract(source, ask, Extraction(batch_size, workers)))
        assert [len(b.features) for b in blocks] == [24, 24, 24, 24, 4]
        for found, expected in zip(joined(blocks), WHOLE, strict=True):
            assert torch.allclose(found, expected, rtol=1e-12, atol=1e-13)
        source.close()


def test_batches_have_their_size_and_their_numbers() -> None:
    seen: list[list[int]] = []

    def watch(images: Tensor, numbers: Sequence[int]) -> Any:
        seen.append(list(numbers))
        return ask(images, numbers)

    list(extract(Tensors(IMAGES[:50]), watch, Extraction(10)))
    assert [len(n) for n in seen] == [10, 10, 4, 10, 10, 4, 2]
    assert sum(seen, []) == list(range(50))


def test_threads_read_ahead_and_no_further() -> None:
    class Slow(Tensors):
        asked = 0
        names: set[str] = set()

        def read(self, numbers: range) -> Any:
            self.asked = max(self.asked, numbers.stop)
            self.names.add(threading.current_thread().name.partition("_")[0])
            return super().read(numbers)

    source = Slow(IMAGES)
    blocks = extract(source, ask, Extraction(4, workers=2))
    next(blocks)
    blocks.close()
    assert source.names == {"images"} and source.asked <= 24 + 4 * 4
    assert not [t for t in threading.enumerate() if t.name.startswith("images")]


def test_the_next_batch_is_read_while_one_is_waited_for() -> None:
    class Paired(Tensors):
        second = threading.Event()

        def read(self, numbers: range) -> Any:
            if numbers.start == 4:
                self.second.set()
            assert numbers.start or self.second.wait(60)
            return super().read(numbers)

    assert len(list(extract(Paired(IMAGES), ask, Extraction(4, workers=2)))) == 5


def test_progress_counts_every_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    class Told:
        def __init__(self, *arguments: Any) -> None:
            told.append(arguments)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: Any) -> None:
            pass

        def advance(self, amount: int) -> None:
            told.append(amount)

    monkeypatch.setattr(door, "Progress", Told)
    how = Extraction(10, shards=Shards(tmp_path / "parts", {}), progress=True)
    for _ in range(2):  # made, then kept
        told.clear()
        list(extract(Tensors(IMAGES), ask, how, "mine"))
        assert told[0] == (100, True, "mine") and sum(told[1:]) == 100


def test_kept_blocks_are_not_asked_again(tmp_path: Path) -> None:
    def shards() -> Shards:
        return Shards(tmp_path / "parts", {"images": 1})

    how = Extraction(10, shards=shards())
    first = extract(Tensors(IMAGES), ask, how)
    stopped = [next(first), next(first)]
    first.close()
    seen: list[int] = []

    def watch(images: Tensor, numbers: Sequence[int]) -> Any:
        seen.extend(numbers)
        return ask(images, numbers)

    again = list(extract(Tensors(IMAGES), watch, replace(how, shards=shards())))
    assert seen == list(range(48, 100))
    assert torch.equal(again[0].features, stopped[0].features) and again[0].logits is not None
    assert torch.equal(
        joined(again)[0], joined(list(extract(Tensors(IMAGES), ask, Extraction(10))))[0]
    )
    damaged = tmp_path / "parts" / "images-00001.npz"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    seen.clear()
    list(extract(Tensors(IMAGES), watch, replace(how, shards=shards())))
    assert seen == list(range(24, 48))


def broken_folder(folder: Path) -> Path:
    """100 pictures, of which 3, 5 and all from 24 to 47 cannot be read."""
    write_pictures(folder, IMAGES)
    for n in (3, 5, *range(24, 48)):
        (folder / f"{n // 10:05d}" / f"img{n:05d}.png").write_bytes(b"broken")
    return folder


def test_unreadable_images_stop_with_their_names(tmp_path: Path) -> None:
    source = open_images(broken_folder(tmp_path))
    with pytest.raises(InputError) as caught:
        list(extract(source, ask, Extraction(2)))
    said = str(caught.value)
    assert "2 of the first 24" in said and "img00003.png (" in said and "img00005.png (" in said
    assert "--on-error skip" in said


def test_unreadable_images_are_skipped_and_counted(tmp_path: Path) -> None:
    source = open_images(broken_folder(tmp_path / "p"))
    how = Extraction(2, on_error="skip", shards=Shards(tmp_path / "parts", {}))
    for _ in range(2):  # made, then kept
        blocks = list(extract(source, ask, how))
        assert [len(b.features) for b in blocks] == [22, 0, 24, 24, 4]
        assert [len(b.unreadable) for b in blocks] == [2, 24, 0, 0, 0]
        rows = [n for n in range(100) if n not in (3, 5, *range(24, 48))]
        found = torch.cat([b.features for b in blocks if len(b.features)])
        assert torch.allclose(found, WHOLE[0][rows], rtol=1e-12, atol=1e-13)
    with pytest.raises(InputError, match="2 of the first 24"):  # kept or not
        list(extract(source, ask, replace(how, on_error="stop")))


def test_batches_of_a_live_model() -> None:
    samples = torch.rand(30, 3, 8, 8) * 2 - 1
    seen: list[int] = []

    def watch(images: Tensor, numbers: Sequence[int]) -> Any:
        seen.extend(numbers)
        return ask(images, numbers)

    blocks = list(extract_batches(iter(samples.split(8)), watch))
    assert seen == list(range(30)) and [len(b.features) for b in blocks] == [8, 8, 8, 6]
    expected = list(extract(Tensors(samples), ask, Extraction()))
    assert torch.allclose(joined(blocks)[0], joined(expected)[0], rtol=1e-12, atol=1e-13)


def test_bad_choices() -> None:
    for bad in ({"batch_size": 0}, {"workers": -1}, {"on_error": "warn"}):
        with pytest.raises(InputError, match=next(iter(bad))):
            Extraction(**bad)
