"""One worker of a job: it makes what is neither done nor somebody's, until nothing is left.

Workers know of each other by the folder alone. They come and go at will; what a lost one had in
hand is taken over, and whoever finds everything done writes the manifest.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InputError, NumericalError, choice, out_of_memory
from ..storage.files import write_whole
from ..values import as_int
from .finish import finish, finished, tidy
from .job import Job, Shard
from .leases import Leases
from .records import DONE, File, Records
from .sampling import Sampler

__all__ = ["Finished", "generate", "make", "part_of"]

_WRITERS = 8  # threads that wait for the disk while the next batch is sampled
_WAIT = 1.0  # seconds between two looks at shards that others have in hand


class Finished(NamedTuple):
    """A shard that this worker has made."""

    number: int
    images: int
    files: list[str]  # paths below the output folder
    failed: list[int]  # seeds whose images are NaN or Inf
    seconds: float
    batch_size: int  # really used: smaller than the job's where memory ran out
    done: int = 0  # shards with a record by now, all workers' together


def generate(
    sampler: Sampler,
    job: Job,
    out: str | os.PathLike[str],
    *,
    part: tuple[int, int] = (0, 1),
    start: float = 0.0,
    on_error: str = "stop",
    expiry: float = 60.0,
    settings: Mapping[str, Any] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Finished]:
    """Make the images of a job, and yield each shard that this worker has finished.

    Any number of processes may run it on one folder, at the same time or one after the other: what
    is done stays, and the bytes do not depend on who made what.

    Args:
        sampler: makes pictures (OfLabels, OfPrompts, or one of your own).
        job: what is made.
        out: the folder, made if there is none.
        part: (i, n): only shards i, i + n, ..., for arrays of jobs; 0 <= i < n. The others are not
            waited for.
        start: where in its shards to begin, in [0, 1): workers that begin apart meet seldom.
        on_error: what a NaN or Inf does: "stop", or "skip" the image and say so in the manifest.
        expiry: seconds without a sign of life after which a shard is taken over, > 0.
        settings: what people should read of the sampler in OUT/job.json; part of the job's key.
        stop: asked before each shard: True = begin no other.

    Raises:
        InputError: a bad argument; a folder of other settings; a full disk. NumericalError: NaN or
            Inf, with the seeds. Finished shards stay, and the same call goes on.
    """
    choice("on_error", on_error, ("skip", "stop"))
    mine = part_of(job, part)
    records = Records(out, job, sampler.fingerprint(), settings)
    records.open()
    todo = [number for number in records.missing() if number in mine]
    if todo:
        seed = job.shard(0).seeds[0]
        sampler.settle(job.labels.of(seed), seed)
    first = int(len(todo) * (start % 1.0))
    leases = Leases(records.out / "leases", expiry)
    try:
        yield from _passes(sampler, records, leases, todo[first:] + todo[:first], on_error, stop)
        if not stop():
            _end(records, leases, wait=part == (0, 1))
    finally:
        leases.close()


def _passes(
    sampler: Sampler,
    records: Records,
    leases: Leases,
    numbers: list[int],
    on_error: str,
    stop: Callable[[], bool],
) -> Iterator[Finished]:
    """Over and over what is left: made here, or waited for while it is somebody's."""
    left, size = dict.fromkeys(numbers), records.job.batch_size
    while left and not stop():
        before = len(left)
        for number in list(left):
            name = f"{number:06d}"
            if stop():
                return
            if records.done(name) is None:
                if not leases.take(name):
                    continue
                try:
                    made = None
                    if records.done(name) is None:  # else its owner ended just before
                        made = make(sampler, records, records.job.shard(number), size, on_error)
                finally:
                    leases.drop(name)
                if made is not None:
                    size = made.batch_size
                    yield made._replace(done=records.count())
            del left[number]
        if len(left) == before:
            time.sleep(min(_WAIT, leases.expiry / 4))


def part_of(job: Job, part: tuple[int, int]) -> range:
    """Numbers of the shards of part (i, n).

    Raises:
        InputError: i is not in [0, n).
    """
    index, parts = as_int("part", part[0], 0), as_int("part", part[1])
    if index >= parts:
        raise InputError("part", f"is {index} of {parts}", f"Give 0 to {parts - 1}")
    return range(index, job.shards, parts)


def make(
    sampler: Sampler, records: Records, shard: Shard, batch_size: int, on_error: str
) -> Finished:
    """Sample a shard, write its files, and its record last."""
    begun, job, writer = time.perf_counter(), records.job, records.job.writer()
    batches = _Batches(sampler, job, batch_size, on_error)
    pool = ThreadPoolExecutor(_WRITERS)
    waiting: list[Future[File]] = []
    kept: list[tuple[list[int], NDArray[np.uint8]]] = []

    def write(seeds: list[int], images: NDArray[np.uint8]) -> None:
        labels = [job.labels.of(seed) for seed in seeds]
        for path, data in writer.files(shard.name, images, seeds, labels):
            waiting.append(pool.submit(_write, records.out, path, data))

    try:
        for start in range(0, len(shard.seeds), job.batch_size):
            for seeds, images in batches.of(shard.seeds[start : start + job.batch_size]):
                if writer.by_shard:
                    kept.append((seeds, images))
                else:
                    write(seeds, images)
        if kept:
            seeds = [seed for some, _ in kept for seed in some]
            write(seeds, np.concatenate([images for _, images in kept]))
        files = [future.result() for future in waiting]
    finally:
        pool.shutdown(cancel_futures=True)
    body = {"seeds": [shard.seeds[0], shard.seeds[-1]], "files": files, "failed": batches.failed}
    records.write(shard.name, {**body, "batch_size": batches.size})
    return Finished(
        shard.number,
        len(shard.seeds) - len(batches.failed),
        [file.path for file in files],
        [row["seed"] for row in batches.failed],
        time.perf_counter() - begun,
        batches.size,
    )


class _Batches:
    """Samples batches: halved where memory runs out, one by one where a NaN is to be named."""

    def __init__(self, sampler: Sampler, job: Job, size: int, on_error: str) -> None:
        self.sampler, self.job, self.size, self.on_error = sampler, job, size, on_error
        self.failed: list[dict[str, Any]] = []

    def of(self, seeds: Sequence[int]) -> Iterator[tuple[list[int], NDArray[np.uint8]]]:
        start = 0
        while start < len(seeds):
            some = list(seeds[start : start + self.size])
            found = self._tried(some)
            if found is not None:
                start += len(some)
                if found[0]:
                    yield found

    def _tried(self, seeds: list[int]) -> tuple[list[int], NDArray[np.uint8]] | None:
        """None: memory ran out, and the batch is smaller from now on."""
        try:
            return seeds, self._sampled(seeds)
        except NumericalError:
            pass  # outside of the handler: its traceback holds the batch in memory
        except (MemoryError, RuntimeError) as error:
            memory = isinstance(error, MemoryError) or out_of_memory(error)
            if not memory or len(seeds) == 1:
                raise
            self.size = len(seeds) // 2
        if self.size < len(seeds):
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            return None
        return self._singly(seeds)

    def _singly(self, seeds: list[int]) -> tuple[list[int], NDArray[np.uint8]]:
        good, images, bad = [], [], []
        for seed in seeds:
            try:
                images.append(self._sampled([seed]))
                good.append(seed)
            except NumericalError as error:
                bad.append({"seed": seed, "reason": str(error)})
        if bad and self.on_error == "stop":
            names = ", ".join(str(row["seed"]) for row in bad)
            raise NumericalError(f"seed {names}: {bad[0]['reason']}")
        self.failed += bad
        return good, np.concatenate(images) if images else np.empty((0, 1, 1, 1), np.uint8)

    def _sampled(self, seeds: list[int]) -> NDArray[np.uint8]:
        found: NDArray[np.uint8] = self.sampler(
            [self.job.labels.of(seed) for seed in seeds], seeds
        ).numpy()
        return found


def _write(out: Path, name: str, data: bytes) -> File:
    path = out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data)
    return File(name, hashlib.sha256(data).hexdigest(), len(data))


def _end(records: Records, leases: Leases, wait: bool) -> None:
    """The manifest, if all shards are done; by one worker, for which those without a part wait."""
    while not records.missing():
        if finished(records):
            tidy(records)
            return
        if leases.take(DONE):
            try:
                finish(records)
            finally:
                leases.drop(DONE)
        elif wait:
            time.sleep(min(_WAIT, leases.expiry / 4))
        else:
            return
