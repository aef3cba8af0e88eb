"""A job looked at again: damage of every kind is found, and so are other bytes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from generation_cases import Numbers, job, made, opened

from reg_engine import InputError
from reg_engine.generation import verify


@pytest.fixture(autouse=True)
def drawn() -> None:
    random.seed(0)


@pytest.mark.parametrize("kind", ["png", "npz", "tar"])
def test_whole(tmp_path: Path, kind: str) -> None:
    if kind == "tar":
        pytest.importorskip("webdataset")
    what = job(format=kind)
    made(tmp_path / "o", what=what)
    sampler = Numbers()
    found = verify(sampler, opened(tmp_path / "o", what), 999)
    assert found.whole and found.files == {"png": 27, "npz": 6, "tar": 5}[kind]
    assert found.remade == 26
    assert sampler.batches == [list(range(s, min(s + 4, 26))) for s in range(0, 26, 4)]
    assert sampler.settled == [(what.labels.of(0), 0)]


def test_the_sample_is_of_all_shards_and_whole_batches(tmp_path: Path) -> None:
    made(tmp_path / "o")
    shards = set()
    for images, batches in ((0, 0), (1, 1), (4, 1), (5, 2), (8, 2)):
        sampler = Numbers()
        found = verify(sampler, opened(tmp_path / "o"), images)
        assert len(sampler.batches) == batches and found.whole
        assert found.remade == sum(map(len, sampler.batches))
        assert all(batch[0] % 4 == 0 for batch in sampler.batches)
        shards |= {batch[0] // 8 for batch in sampler.batches}
        assert bool(sampler.settled) == bool(images)
    assert len(shards) > 1
    with pytest.raises(InputError, match="images"):
        verify(Numbers(), opened(tmp_path / "o"), -1)


def test_damage_is_named(tmp_path: Path) -> None:
    made(tmp_path / "o")
    out, records = tmp_path / "o", opened(tmp_path / "o")
    image = out / "000000" / "000003.png"
    data = bytearray(image.read_bytes())
    data[-20] ^= 1  # the size stays
    image.write_bytes(bytes(data))
    (out / "000000" / "000099.png").write_bytes(b"x")
    found = verify(Numbers(), records, 99)
    assert not found.whole
    assert (found.damaged, found.foreign) == (["000000/000003.png"], ["000000/000099.png"])
    # What is known to be damaged is not made again: its shard is left out.
    assert (found.missing, found.remade, found.files) == ([], 18, 26)
    (out / "000000" / "000009.png").unlink()
    found = verify(Numbers(), records, 0)
    assert (found.missing, found.damaged[1]) == (["000001"], "000000/000009.png")
    (out / "shards" / "000002.json").unlink()
    found = verify(Numbers(), records, 0)
    assert found.missing == ["000001", "000002", "done"]
    assert "000000/000016.png" in found.foreign and "000000/000008.png" not in found.foreign


@pytest.mark.parametrize("kind", ["png", "npz", "tar"])
def test_other_bytes_are_seen(tmp_path: Path, kind: str) -> None:
    if kind == "tar":
        pytest.importorskip("webdataset")
    what = job(format=kind)
    made(tmp_path / "o", what=what)

    class Other(Numbers):
        """One image of the second shard comes out otherwise."""

        def __call__(self, labels, seeds):  # type: ignore[no-untyped-def]
            found = super().__call__(labels, seeds)
            return found ^ (torch.tensor(seeds) == 13).to(torch.uint8).view(-1, 1, 1, 1)

    found = verify(Other(), opened(tmp_path / "o", what), 99)
    assert found.different == [13] and not found.whole and not found.damaged
    assert found.remade == 25


@pytest.mark.parametrize("kind", ["png", "npz"])
def test_an_image_that_could_not_be_made_then_and_can_now(tmp_path: Path, kind: str) -> None:
    what = job(format=kind)
    made(tmp_path / "o", Numbers([5, *range(8, 16)]), what, on_error="skip")
    again = verify(Numbers([5, *range(8, 16)]), opened(tmp_path / "o", what), 99)
    assert again.whole and again.remade == 26
    found = verify(Numbers([5]), opened(tmp_path / "o", what), 99)
    assert found.different == list(range(8, 16))
    assert verify(Numbers([4]), opened(tmp_path / "o", what), 99).different == [4, 5, *range(8, 16)]


def test_a_shard_of_smaller_batches_is_made_again_with_those(tmp_path: Path) -> None:
    made(tmp_path / "o", Numbers(most=2))
    sampler = Numbers()
    assert verify(sampler, opened(tmp_path / "o")).whole
    assert {len(batch) for batch in sampler.batches} == {2}
    with pytest.raises(InputError, match="out of memory in batches of 2"):
        verify(Numbers(most=1), opened(tmp_path / "o"))
