"""The manifest and the archive: complete, in order, and written again where they are damaged."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from generation_cases import Numbers, job, made, opened, tree

from reg_engine.generation.finish import MANIFEST, finished


def test_a_line_an_image_with_label_checksum_and_job(tmp_path: Path) -> None:
    made(tmp_path / "o")
    records = opened(tmp_path / "o")
    lines = [json.loads(line) for line in (tmp_path / "o" / MANIFEST).read_text().splitlines()]
    assert [line["seed"] for line in lines] == list(range(26))
    for line in lines:
        data = (tmp_path / "o" / line["file"]).read_bytes()
        assert line["sha256"] == hashlib.sha256(data).hexdigest()
        assert line["label"] == job().labels.of(line["seed"])
        assert records.key.startswith(line["job"]) and len(line["job"]) == 16
    assert finished(records)


@pytest.mark.parametrize("kind", ["npz", "tar"])
def test_of_shards_in_one_file_the_place_too(tmp_path: Path, kind: str) -> None:
    if kind == "tar":
        pytest.importorskip("webdataset")
    made(tmp_path / "o", what=job(format=kind))
    lines = [json.loads(line) for line in (tmp_path / "o" / MANIFEST).read_text().splitlines()]
    places = [(line["file"], line["index"]) for line in lines[7:10]]
    one = [("samples.npz", place) for place in (7, 8, 9)]
    assert places == (one if kind == "npz" else [("000000.tar", 7), ("000001.tar", 0), places[2]])
    for line in (lines[0], lines[-1]):
        data = (tmp_path / "o" / line["file"]).read_bytes()
        assert line["sha256"] == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("kind", ["png", "npz"])
def test_a_manifest_cut_in_the_middle_is_written_again(tmp_path: Path, kind: str) -> None:
    what = job(format=kind)
    made(tmp_path / "o", what=what)
    whole = tree(tmp_path / "o")
    (tmp_path / "o" / MANIFEST).write_bytes(whole[MANIFEST][:100])
    sampler = Numbers()
    assert made(tmp_path / "o", sampler, what) == [] and sampler.batches == []
    assert tree(tmp_path / "o") == whole


def test_it_tells_of_the_shards_as_they_are(tmp_path: Path) -> None:
    made(tmp_path / "o", Numbers(bad=[3]), on_error="skip")
    records = opened(tmp_path / "o")
    assert finished(records)
    (tmp_path / "o" / "shards" / "000000.json").unlink()
    assert not finished(records)
    made(tmp_path / "o")  # now without the NaN
    made(tmp_path / "reference")
    assert finished(records) and tree(tmp_path / "o") == tree(tmp_path / "reference")
