"""The archive of an npz job: images lie on the disk once, and every part can be made of it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from generation_cases import Numbers, job, made, opened, picture, tree, worker

from reg_engine import InputError
from reg_engine.generation import archive, finish, verify
from reg_engine.generation.records import ARCHIVE, files_in

WHAT = job(format="npz")


def parts(out: Path) -> list[str]:
    return sorted(os.listdir(out / "parts")) if (out / "parts").exists() else []


def test_it_holds_every_image_once(tmp_path: Path) -> None:
    made(tmp_path / "o", what=WHAT, part=(0, 2))
    assert parts(tmp_path / "o") == ["000000.npz", "000002.npz"]
    made(tmp_path / "o", what=WHAT)
    assert parts(tmp_path / "o") == [] and not (tmp_path / "o" / "parts").exists()
    with np.load(tmp_path / "o" / ARCHIVE) as found:
        labels = [WHAT.labels.of(seed) for seed in range(26)]
        assert found["arr_1"].tolist() == labels
        wanted = np.stack([picture(label, seed) for seed, label in enumerate(labels)])
        assert np.array_equal(found["arr_0"], np.broadcast_to(wanted, (26, 6, 6, 3)))
    sampler = Numbers()
    assert made(tmp_path / "o", sampler, WHAT) == [] and sampler.batches == []


def test_a_part_of_it_has_its_bytes(tmp_path: Path) -> None:
    bad = [5, 16, 17, 18, 19, 20, 21, 22, 23]  # one of a shard, and a whole shard
    made(tmp_path / "o", Numbers(bad), WHAT, on_error="skip")
    records = opened(tmp_path / "o", WHAT)
    rows = []
    for number, name in enumerate(records.names()):
        body = records.done(name)
        assert body is not None
        rows.append(records.held(number, body))
        for file in files_in(body):
            data = archive.part(records, number, body)
            assert (hashlib.sha256(data).hexdigest(), len(data)) == (file.sha256, file.bytes)
            assert not records.there(file)
    assert rows == [(0, 7), (7, 8), (15, 0), (15, 2)]


@pytest.mark.parametrize("last", ["archive", "manifest", "done", "tidy"])
def test_a_kill_at_its_end_loses_nothing(tmp_path: Path, last: str) -> None:
    """Killed just before or after the archive stands, before the record of both, or while the
    parts go."""
    out = tmp_path / "o"
    pid = os.fork()
    if not pid:
        places = {"archive": 0, "manifest": 1}
        replacing, calls = finish.replacing, []

        def dying(path: Path):  # type: ignore[no-untyped-def]
            if len(calls) == places[last]:
                os.kill(os.getpid(), signal.SIGKILL)
            calls.append(path)
            return replacing(path)

        def clear(folder: Path, names: object) -> None:
            (folder / "000001.npz").unlink()
            os.kill(os.getpid(), signal.SIGKILL)

        if last in places:
            finish.replacing = dying
        elif last == "tidy":
            finish.clear = clear
        else:
            finish.sha256_of = lambda path: os.kill(os.getpid(), signal.SIGKILL)
        made(out, what=WHAT)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert len(parts(out)) == (3 if last == "tidy" else 4)
    sampler = Numbers()
    assert opened(out, WHAT).missing() == []
    assert made(out, sampler, WHAT) == [] and sampler.batches == []
    made(tmp_path / "reference", what=WHAT)
    assert tree(out) == tree(tmp_path / "reference")


def test_a_shard_made_anew_goes_into_it_beside_the_others(tmp_path: Path) -> None:
    """Its record was removed, so that a NaN is tried again; the other parts are gone."""
    made(tmp_path / "o", Numbers([3]), WHAT, on_error="skip")
    (tmp_path / "o" / "shards" / "000000.json").unlink()
    sampler = Numbers()
    assert [shard.number for shard in made(tmp_path / "o", sampler, WHAT)] == [0]
    assert len(sampler.batches) == 2
    made(tmp_path / "reference", what=WHAT)
    assert tree(tmp_path / "o") == tree(tmp_path / "reference")


def test_without_it_all_is_made_again(tmp_path: Path) -> None:
    made(tmp_path / "o", what=WHAT)
    whole = tree(tmp_path / "o")
    for data in (b"", whole[ARCHIVE][:100]):
        (tmp_path / "o" / ARCHIVE).write_bytes(data)
        assert len(verify(Numbers(), opened(tmp_path / "o", WHAT)).missing) == 5
        assert len(made(tmp_path / "o", what=WHAT)) == 4
        assert tree(tmp_path / "o") == whole


def test_damage_within_is_found(tmp_path: Path) -> None:
    """A byte of an image of the second shard, and the header of the member."""
    made(tmp_path / "o", what=WHAT)
    whole = (tmp_path / "o" / ARCHIVE).read_bytes()
    header = whole.index(b"\x93NUMPY")
    for place, damaged in (
        (header + 128 + 10 * 6 * 6 * 3, ["parts/000001.npz", ARCHIVE]),
        (header, [f"parts/00000{n}.npz" for n in range(4)] + [ARCHIVE]),
        (0, [f"parts/00000{n}.npz" for n in range(4)] + [ARCHIVE]),
    ):
        data = bytearray(whole)
        data[place] ^= 1
        (tmp_path / "o" / ARCHIVE).write_bytes(bytes(data))
        found = verify(Numbers(), opened(tmp_path / "o", WHAT))
        assert found.damaged == damaged and not found.missing
        assert found.different == [] and found.remade == (18 if len(damaged) == 2 else 0)
    records = opened(tmp_path / "o", WHAT)
    with pytest.raises(InputError, match="is damaged"):
        archive.rows_of(records, 0, records.done("000000") or {})


def test_two_that_end_it_at_once(tmp_path: Path) -> None:
    what = job(98, format="npz")
    workers = [worker(tmp_path / "o", what, start=rank / 3, expiry=0.01) for rank in range(3)]
    for each in workers:
        each.join(60)
        assert each.exitcode == 0
    made(tmp_path / "o", what=what)
    made(tmp_path / "reference", what=what)
    assert tree(tmp_path / "o") == tree(tmp_path / "reference")
    lines = (tmp_path / "o" / finish.MANIFEST).read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == list(range(98))
