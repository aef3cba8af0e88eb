"""The end of a job, when all shards are done: the manifest, the one archive of an npz job, and the
record of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from ..storage.files import clear, discard, replacing
from . import archive
from .records import ARCHIVE, DONE, File, Records, files_in, sha256_of

__all__ = ["MANIFEST", "finish", "finished", "tidy"]

MANIFEST = "manifest.jsonl"


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
    body: dict[str, Any] = {}
    if records.job.format == "npz":
        with replacing(records.out / ARCHIVE) as file:
            body["held"] = archive.write(records, file)
        names.append(ARCHIVE)
    with replacing(records.out / MANIFEST) as file:
        for line in _lines(records):
            file.write(json.dumps(line).encode() + b"\n")
    files = []
    for name in names:
        path = records.out / name
        files.append(File(name, sha256_of(path), path.stat().st_size))
    records.write(DONE, {"files": files, "shards": state, **body})


def tidy(records: Records) -> None:
    """Of a finished job: remove what lost workers left, half written files and leases, and parts
    that are in the archive."""
    records.tidy()
    for lease in (records.out / "leases").iterdir():
        if lease.name.isdecimal() or lease.name == DONE:
            discard(lease)
    if records.job.format == "npz":
        clear(records.out / "parts", (f"{name}.npz" for name in records.names()))


def _state(records: Records) -> str:
    """A digest of all shards' records; "" where one is missing."""
    found = hashlib.sha256()
    for name in records.names():
        body = records.read(name)
        if body is None:
            return ""
        found.update(json.dumps(body, sort_keys=True).encode())
    return found.hexdigest()


def _lines(records: Records) -> Iterator[dict[str, Any]]:
    """An image a line, in the order of the seeds; those that could not be made say why."""
    whole, place = records.job.writer().by_shard, 0
    one = records.job.format == "npz"
    checksum = sha256_of(records.out / ARCHIVE) if one else ""
    for number, name in enumerate(records.names()):
        body = records.read(name)
        assert body is not None  # all shards are done
        files, failed = files_in(body), {row["seed"]: row["reason"] for row in body["failed"]}
        place = place if one else 0
        for seed in records.job.shard(number).seeds:
            line: dict[str, Any] = {"seed": seed, "label": records.job.labels.of(seed)}
            if seed in failed:
                line["failed"] = failed[seed]
            else:
                path, found, _ = files[0 if whole else place]
                line |= {"file": ARCHIVE if one else path, "sha256": checksum or found}
                line |= {"index": place} if whole else {}
                place += 1
            yield {**line, "job": records.key[:16]}
