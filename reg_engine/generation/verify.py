"""A finished job looked at again: every checksum, and shards made anew."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..values import as_int
from .finish import finished
from .records import DONE, Records, files_in, sha256_of
from .sampling import Sampler
from .worker import make

__all__ = ["Verified", "verify"]


@dataclass
class Verified:
    """What was found.

    Attributes:
        files: how many files have the bytes that their records name.
        missing: names of shards that are not done.
        damaged: files that have other bytes, or are no files.
        foreign: files that no record names.
        remade: shards that were made anew to the same bytes.
        different: shards that were made anew to other bytes.
    """

    files: int = 0
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    remade: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.missing or self.damaged or self.foreign or self.different)


def verify(sampler: Sampler, records: Records, remake: int = 1) -> Verified:
    """Compute every checksum again, and make some shards anew, in a folder that is then removed.

    Args:
        sampler: of the job.
        records: of its folder, opened.
        remake: how many shards, drawn at random, >= 0.

    Raises:
        InputError: what the records refuse.
    """
    remake = as_int("remake", remake, 0)
    found, known = Verified(), {"job.json"}
    for name in [*records.names(), DONE]:
        body = records.read(name)
        if body is None or (name == DONE and not finished(records)):
            found.missing.append(name)
            continue
        known.add(f"shards/{name}.json")
        for file in files_in(body):
            known.add(file.path)
            if records.there(file) and sha256_of(records.out / file.path) == file.sha256:
                found.files += 1
            else:
                found.damaged.append(file.path)
    found.foreign = [path for path in _files(records.out) if path not in known]
    whole = [name for name in records.names() if name not in found.missing]
    for name in sorted(random.sample(whole, min(remake, len(whole)))):
        same = _same(sampler, records, name)
        (found.remade if same else found.different).append(name)
    return found


def _same(sampler: Sampler, records: Records, name: str) -> bool:
    """Whether a shard's files come out with the same bytes."""
    body = records.read(name)
    assert body is not None
    seed = records.job.shard(0).seeds[0]
    sampler.settle(records.job.labels.of(seed), seed)
    with tempfile.TemporaryDirectory() as folder:
        other = Records(folder, records.job, sampler.fingerprint())
        made = make(sampler, other, records.job.shard(int(name)), body["batch_size"], "skip")
        again = other.read(f"{made.number:06d}")
        return again is not None and again["files"] == body["files"]


def _files(out: Path) -> Iterator[str]:
    for path in sorted(out.rglob("*")):
        if not path.is_dir() and path.parent != out / "leases":
            yield path.relative_to(out).as_posix()
