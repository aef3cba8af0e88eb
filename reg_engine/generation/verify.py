"""A finished job looked at again: every checksum, and some images made anew."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..storage.readers import open_regular
from ..values import as_int
from .archive import kept_seeds, part
from .finish import finished
from .making import Batches, Smaller
from .records import DONE, File, Records, files_in, sha256_of
from .sampling import Sampler

__all__ = ["Verified", "verify"]


@dataclass
class Verified:
    """What was found.

    Attributes:
        files: how many files have the bytes that their records name; parts in an archive count.
        missing: names of shards that are not done.
        damaged: files that have other bytes, or are no files.
        foreign: files that no record names.
        remade: how many images were made anew to the same bytes.
        different: seeds whose images were made anew to other bytes.
    """

    files: int = 0
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    remade: int = 0
    different: list[int] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.missing or self.damaged or self.foreign or self.different)


def verify(sampler: Sampler, records: Records, images: int = 100) -> Verified:
    """Compute every checksum again, and make some images anew, which are written nowhere.

    Args:
        sampler: of the job.
        records: of its folder, opened.
        images: at least so many, >= 0, in whole batches drawn at random from all shards; a batch
            is the least that comes out to the same bytes.

    Raises:
        InputError: what the records refuse.
    """
    images = as_int("images", images, 0)
    found, known, whole = Verified(), {"job.json"}, []
    for name in [*records.names(), DONE]:
        body = records.done(name)
        if body is None or (name == DONE and not finished(records)):
            found.missing.append(name)
            body = records.read(name)
        if body is None:
            continue
        known.add(f"shards/{name}.json")
        bad = [file.path for file in files_in(body) if not _good(records, name, file)]
        known |= {file.path for file in files_in(body)}
        found.files += len(files_in(body)) - len(bad)
        found.damaged += bad
        if name != DONE and not bad:
            whole.append(int(name))
    found.foreign = [path for path in _files(records.out) if path not in known]
    size = records.job.batch_size
    every = [(n, b) for n in whole for b in range(-(-len(records.job.shard(n).seeds) // size))]
    drawn = sorted(random.sample(every, min(-(-images // size), len(every))))
    if drawn:
        seed = records.job.shard(0).seeds[0]
        sampler.settle(records.job.labels.of(seed), seed)
    for number, batch in drawn:
        same, different = _again(sampler, records, number, batch)
        found.remade += same
        found.different += different
    return found


def _good(records: Records, name: str, file: File) -> bool:
    """Whether a file has its bytes, on the disk or as a stretch of the archive."""
    if records.there(file):
        return sha256_of(records.out / file.path) == file.sha256
    body = records.done(name)
    if body is None or name == DONE:
        return False
    try:
        return hashlib.sha256(part(records, int(name), body)).hexdigest() == file.sha256
    except InputError:
        return False


def _again(sampler: Sampler, records: Records, number: int, batch: int) -> tuple[int, list[int]]:
    """Of a batch made anew: how many images have the same bytes, and the seeds that have not."""
    job, body = records.job, records.read(f"{number:06d}")
    assert body is not None
    seeds = job.shard(number).seeds[batch * job.batch_size :][: job.batch_size]
    batches = Batches(sampler, job, body["batch_size"], "skip")
    writer, again = job.writer(), dict[int, bytes]()
    try:
        for some, images in batches.of(seeds):
            labels = [job.labels.of(seed) for seed in some]
            files = writer.files(f"{number:06d}", images, some, labels)
            items = [item for _, data in files for item in writer.items(data)]
            again.update(zip(some, items, strict=True))
    except Smaller as error:
        problem = f"runs out of memory in batches of {body['batch_size']}, which it was made in"
        raise InputError("shard", f"{number} {problem}", "Free memory") from error
    then = _then(records, number, body, set(seeds))
    different = [seed for seed in seeds if then.get(seed) != again.get(seed)]
    return len(seeds) - len(different), different


def _then(records: Records, number: int, body: dict[str, Any], seeds: set[int]) -> dict[int, bytes]:
    """What the files of a shard hold of these seeds, of those that could be made."""
    writer, kept, files = records.job.writer(), kept_seeds(records, number, body), files_in(body)
    if not writer.by_shard:
        wanted = [(s, f) for s, f in zip(kept, files, strict=True) if s in seeds]
        return {seed: _read(records.out / file.path) for seed, file in wanted}
    if not files:
        return {}
    path = records.out / files[0].path
    data = _read(path) if records.there(files[0]) else part(records, number, body)
    return {s: d for s, d in zip(kept, writer.items(data), strict=True) if s in seeds}


def _read(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read()


def _files(out: Path) -> Iterator[str]:
    for path in sorted(out.rglob("*")):
        if not path.is_dir() and path.parent != out / "leases":
            yield path.relative_to(out).as_posix()
