"""The end of a job, when all shards are done: the manifest, the one archive of an npz job, and the
record of both."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from ..storage.files import discard, member, replacing
from ..storage.readers import read_npz
from .labels import Label
from .records import DONE, File, Records, files_in, sha256_of

__all__ = ["MANIFEST", "finish", "finished", "tidy"]

MANIFEST, ARCHIVE = "manifest.jsonl", "samples.npz"


def finished(records: Records) -> bool:
    """Whether manifest and archive are there and tell of the shards as they are now."""
    body = records.done(DONE)
    return body is not None and body["shards"] == _state(records)


def finish(records: Records) -> None:
    """Write them; of several workers that do, all write the same.

    Raises:
        InputError: the folder cannot be written; a part is damaged.
    """
    state, names = _state(records), [MANIFEST]
    with replacing(records.out / MANIFEST) as file:
        for line in _lines(records):
            file.write(json.dumps(line).encode() + b"\n")
    if records.job.format == "npz":
        with replacing(records.out / ARCHIVE) as file:
            _archive(records, file)
        names.append(ARCHIVE)
    files = []
    for name in names:
        path = records.out / name
        files.append(File(name, sha256_of(path), path.stat().st_size))
    records.write(DONE, {"files": files, "shards": state})


def tidy(records: Records) -> None:
    """Of a finished job: remove what lost workers left, half written files and leases."""
    records.tidy()
    for lease in (records.out / "leases").iterdir():
        if lease.name.isdecimal() or lease.name == DONE:
            discard(lease)


def _state(records: Records) -> str:
    """A digest of all shards' records; "" where one is missing."""
    found = hashlib.sha256()
    for name in records.names():
        body = records.read(name)
        if body is None:
            return ""
        found.update(json.dumps(body, sort_keys=True).encode())
    return found.hexdigest()


def _bodies(records: Records) -> Iterator[tuple[list[int], dict[str, Any]]]:
    for number, name in enumerate(records.names()):
        body = records.read(name)
        assert body is not None  # all shards are done
        yield records.job.shard(number).seeds, body


def _lines(records: Records) -> Iterator[dict[str, Any]]:
    """An image a line, in the order of the seeds; those that could not be made say why."""
    whole = records.job.writer().by_shard
    for seeds, body in _bodies(records):
        files, failed = files_in(body), {row["seed"]: row["reason"] for row in body["failed"]}
        place = 0
        for seed in seeds:
            line: dict[str, Any] = {"seed": seed, "label": records.job.labels.of(seed)}
            if seed in failed:
                line["failed"] = failed[seed]
            else:
                file = files[0 if whole else place]
                line |= {"file": file.path, "sha256": file.sha256}
                line |= {"index": place} if whole else {}
                place += 1
            yield {**line, "job": records.key[:16]}


def _archive(records: Records, file: BinaryIO) -> None:
    """All parts as one: arr_0 piece by piece, then the labels."""
    count = sum(len(seeds) - len(body["failed"]) for seeds, body in _bodies(records))
    labels: list[Label] = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        with member(archive, "arr_0.npy") as array:
            begun = False
            for seeds, body in _bodies(records):
                lost = {row["seed"] for row in body["failed"]}
                labels += [records.job.labels.of(seed) for seed in seeds if seed not in lost]
                for part in files_in(body):
                    images = read_npz(records.out / part.path, ("arr_0",), "Make it again")["arr_0"]
                    if not begun:
                        _header(array, (count, *images.shape[1:]), "|u1")
                        begun = True
                    array.write(images.tobytes())
        if all(isinstance(label, int) for label in labels):
            with member(archive, "arr_1.npy") as array:
                np.lib.format.write_array(array, np.array(labels, dtype="<i8"))


def _header(file: Any, shape: tuple[int, ...], kind: str) -> None:
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
