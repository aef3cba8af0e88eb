"""A job looked at again: damage of every kind is found, and so are other bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from generation_cases import Numbers, job, made, opened

from reg_engine.generation import verify


@pytest.mark.parametrize("kind", ["png", "npz"])
def test_whole(tmp_path: Path, kind: str) -> None:
    made(tmp_path / "o", what=job(format=kind))
    found = verify(Numbers(), opened(tmp_path / "o", job(format=kind)), remake=9)
    assert found.whole and found.files == {"png": 27, "npz": 6}[kind]
    assert found.remade == ["000000", "000001", "000002", "000003"]


def test_damage_is_named(tmp_path: Path) -> None:
    made(tmp_path / "o")
    out, records = tmp_path / "o", opened(tmp_path / "o")
    image = out / "000000" / "000003.png"
    data = bytearray(image.read_bytes())
    data[-20] ^= 1  # the size stays
    image.write_bytes(bytes(data))
    (out / "000000" / "000099.png").write_bytes(b"x")
    found = verify(Numbers(), records, remake=0)
    assert not found.whole
    assert (found.damaged, found.foreign) == (["000000/000003.png"], ["000000/000099.png"])
    assert (found.missing, found.remade, found.files) == ([], [], 26)
    (out / "shards" / "000002.json").unlink()
    found = verify(Numbers(), records, remake=0)
    assert found.missing == ["000002", "done"]
    assert "000000/000016.png" in found.foreign


def test_other_bytes_are_seen(tmp_path: Path) -> None:
    made(tmp_path / "o")

    class Other(Numbers):
        def __call__(self, labels, seeds):  # type: ignore[no-untyped-def]
            return super().__call__(labels, seeds) ^ 1

    found = verify(Other(), opened(tmp_path / "o"), remake=2)
    assert len(found.different) == 2 and not found.whole and not found.damaged


def test_a_shard_of_smaller_batches_is_made_again_with_those(tmp_path: Path) -> None:
    made(tmp_path / "o", Numbers(most=2))
    sampler = Numbers()
    assert verify(sampler, opened(tmp_path / "o")).whole
    assert {len(batch) for batch in sampler.batches} == {2}
