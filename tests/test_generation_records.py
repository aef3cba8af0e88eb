"""Records: what counts as done, and folders that belong to something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from generation_cases import Numbers, job, made, opened, tree

from reg_engine import InputError
from reg_engine.generation import records as module
from reg_engine.generation.records import Records


def test_done_is_what_a_whole_record_of_this_job_says(tmp_path: Path) -> None:
    made(tmp_path / "o")
    records = opened(tmp_path / "o")
    assert records.missing() == [] and records.count() == 4
    body = records.done("000003")
    assert body is not None and body["seeds"] == [24, 25] and body["batch_size"] == 4
    (tmp_path / "o" / "000000" / "000025.png").unlink()
    assert records.done("000003") is None and records.read("000003") is not None
    assert records.missing() == [3]


@pytest.mark.parametrize("change", ["cut", "empty", "garbage", "flip", "list", "other", "gone"])
def test_a_damaged_record_is_none(tmp_path: Path, change: str) -> None:
    made(tmp_path / "o")
    path = tmp_path / "o" / "shards" / "000001.json"
    data = path.read_bytes()
    changed = {
        "cut": data[: len(data) // 2],
        "empty": b"",
        "garbage": b"\xff\x00garbage",
        "flip": data.replace(b"000000/000009.png", b"000000/000007.png"),
        "list": b"[1, 2]",
        "other": (tmp_path / "o" / "shards" / "000002.json").read_bytes(),
        "gone": b"",
    }[change]
    path.write_bytes(changed)
    if change == "gone":
        path.unlink()
    before = tree(tmp_path / "o")
    records = opened(tmp_path / "o")
    assert records.missing() == [1]
    again = made(tmp_path / "o")
    assert [shard.number for shard in again] == [1]
    after = tree(tmp_path / "o")
    assert after.pop("shards/000001.json") == data
    assert after == {n: d for n, d in before.items() if n != "shards/000001.json"}


def test_a_link_or_a_file_of_another_size_is_made_again(tmp_path: Path) -> None:
    made(tmp_path / "o")
    whole = tree(tmp_path / "o")
    one, two = (tmp_path / "o" / "000000" / f"{n:06d}.png" for n in (1, 9))
    data = one.read_bytes()
    one.unlink()
    elsewhere = tmp_path / "elsewhere.png"
    elsewhere.write_bytes(data)
    # As long a way there as the file is, which is what a link's size says.
    one.symlink_to(f"{tmp_path}/{'/' * (len(data) - len(str(elsewhere)))}elsewhere.png")
    assert one.lstat().st_size == len(data) and one.read_bytes() == data
    two.write_bytes(two.read_bytes()[:-1])
    assert opened(tmp_path / "o").missing() == [0, 1]
    made(tmp_path / "o")
    assert not one.is_symlink() and tree(tmp_path / "o") == whole


@pytest.mark.parametrize(
    ("given", "sampler", "says"),
    [
        ({"batch_size": 8}, None, "batch_size is 4 there, 8 here"),
        ({"format": "webp"}, None, "format is 'png' there, 'webp' here"),
        ({"seeds": (range(27),)}, None, "seeds is '0-25' there, '0-26' here"),
        ({}, Numbers(channels=3), "the networks, their numbers, or versions differ"),
    ],
)
def test_a_folder_of_other_settings_is_refused(
    tmp_path: Path, given: dict[str, Any], sampler: Any, says: str
) -> None:
    made(tmp_path / "o")
    before = tree(tmp_path / "o")
    with pytest.raises(InputError, match=says):
        made(tmp_path / "o", sampler, job(**given))
    assert tree(tmp_path / "o") == before


def test_what_people_read_counts_and_labels_do(tmp_path: Path) -> None:
    from reg_engine.generation import Cycle, Job

    keys = {
        Records("o", what, sampler, settings).key
        for what, sampler, settings in (
            (job(), "a", None),
            (job(), "b", None),
            (job(), "a", {"scale": 3}),
            (Job((range(26),), Cycle((1, 2), "file:l"), 4, 8), "a", None),
            (Job((range(26),), Cycle((1, 3), "file:l"), 4, 8), "a", None),
        )
    }
    assert len(keys) == 5
    names = [
        Records("o", Job((range(26),), Cycle((1, 2), f"file:{n}"), 4, 8), "a", {"model": n, "x": 1})
        for n in "ab"
    ]
    assert names[0].key == names[1].key  # files renamed; what they hold is digested
    assert names[0].settings != names[1].settings
    assert Records("o", job(), "a").key == Records("other", job(), "a").key


def test_folders_of_others(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="holds other things: thesis.tex"):
        made(tmp_path)
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises((InputError, OSError)):
        made(file)
    with pytest.raises(InputError, match="cannot be written"):
        made(Path("/proc/no/where"))
    for remote in ("s3://bucket/images", Path("s3://bucket/images"), Path("server:/images")):
        with pytest.raises(InputError, match="Mount it"):
            made(remote)  # type: ignore[arg-type]
    assert sorted(tree(tmp_path)) == ["file", "thesis.tex"]


def test_a_damaged_note_is_said_and_its_shards_stay(tmp_path: Path) -> None:
    made(tmp_path / "o")
    note = tmp_path / "o" / "job.json"
    data = note.read_bytes()
    for content in (data[:40], b"[]", b'{"key": 1}'):
        note.write_bytes(content)
        with pytest.raises(InputError, match=r"job\.json is damaged"):
            made(tmp_path / "o")
    before = tree(tmp_path / "o")
    note.unlink()  # as the error says
    with pytest.raises(InputError, match="holds other things"):
        made(tmp_path / "o", what=job(batch_size=8))
    made(tmp_path / "o")
    assert note.read_bytes() == data and tree(tmp_path / "o") == {**before, "job.json": data}


def test_of_two_jobs_begun_at_once_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = module.write_whole

    def late(path: Path, data: bytes) -> None:
        """Another job's note takes the place of what was just written."""
        monkeypatch.undo()
        write(path, data)
        other = Records(tmp_path / "o", job(batch_size=8), Numbers().fingerprint())
        write(path, json.dumps({"key": other.key, "settings": other.settings}).encode())

    monkeypatch.setattr(module, "write_whole", late)
    with pytest.raises(InputError, match="batch_size is 8 there, 4 here"):
        opened(tmp_path / "o")


def test_the_note_is_for_people(tmp_path: Path) -> None:
    made(tmp_path / "o", settings={"model": "numbers", "scale": 4.0})
    settings = json.loads((tmp_path / "o" / "job.json").read_text())["settings"]
    assert (settings["model"], settings["scale"], settings["labels"]) == ("numbers", 4.0, "uniform")
