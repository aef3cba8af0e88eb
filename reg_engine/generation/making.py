"""A shard made: sampled batch by batch, written while the next is sampled, recorded last."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import NumericalError, out_of_memory
from ..storage.files import write_whole
from .job import Job, Shard
from .records import File, Records
from .sampling import Sampler

__all__ = ["Batches", "Finished", "Smaller", "make"]

_WRITERS = 8  # threads that wait for the disk while the next batch is sampled
_PENDING = 64  # files that may wait for a slow disk before sampling waits, too


class Finished(NamedTuple):
    """A shard that this worker has made."""

    number: int
    images: int
    files: list[str]  # paths below the output folder
    failed: list[int]  # seeds whose images are NaN or Inf
    seconds: float
    batch_size: int  # really used: smaller than the job's where memory ran out
    done: int = 0  # shards with a record by now, all workers' together


class Smaller(Exception):
    """Memory ran out: the shard is begun again with batches of this size."""

    def __init__(self, size: int) -> None:
        self.size = size
        super().__init__(f"memory ran out; batches of {size} from now on")


def make(
    sampler: Sampler, records: Records, shard: Shard, batch_size: int, on_error: str
) -> Finished:
    """Sample a shard, write its files, and its record last. Where memory runs out, the batch is
    halved and the shard begun again: one size for all of it, which its record names."""
    begun = time.perf_counter()
    while True:
        try:
            batches = Batches(sampler, records.job, batch_size, on_error)
            files = _files(batches, records, shard)
            break
        except Smaller as error:
            batch_size = error.size
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    body = {"seeds": [shard.seeds[0], shard.seeds[-1]], "files": files, "failed": batches.failed}
    records.write(shard.name, {**body, "batch_size": batch_size})
    return Finished(
        shard.number,
        len(shard.seeds) - len(batches.failed),
        [file.path for file in files],
        [row["seed"] for row in batches.failed],
        time.perf_counter() - begun,
        batch_size,
    )


def _files(batches: Batches, records: Records, shard: Shard) -> list[File]:
    """Sample and write; after an error nothing is still being written."""
    job, writer = records.job, records.job.writer()
    pool = ThreadPoolExecutor(_WRITERS)
    waiting: deque[Future[File]] = deque()
    files: list[File] = []
    kept: list[tuple[list[int], NDArray[np.uint8]]] = []

    def settle(most: int) -> None:
        while len(waiting) > most:
            files.append(waiting.popleft().result())

    def write(seeds: list[int], images: NDArray[np.uint8]) -> None:
        labels = [job.labels.of(seed) for seed in seeds]
        for path, data in writer.files(shard.name, images, seeds, labels):
            waiting.append(pool.submit(_write, records.out, path, data))
            settle(_PENDING)

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
        settle(0)
    finally:
        pool.shutdown(cancel_futures=True)
    return files


class Batches:
    """Samples batches: one by one where a NaN is to be named.

    Args:
        size: images sampled together.
        on_error: "stop" at a NaN or Inf, or "skip" it; then `failed` names it.
    """

    def __init__(self, sampler: Sampler, job: Job, size: int, on_error: str) -> None:
        self.sampler, self.job, self.size, self.on_error = sampler, job, size, on_error
        self.failed: list[dict[str, Any]] = []

    def of(self, seeds: Sequence[int]) -> Iterator[tuple[list[int], NDArray[np.uint8]]]:
        """(seeds, images) batch by batch, of a batch of the job.

        Raises:
            Smaller: memory ran out. NumericalError: a NaN or Inf, with its seed.
        """
        for start in range(0, len(seeds), self.size):
            some = list(seeds[start : start + self.size])
            found = self._tried(some)
            if found is None:  # outside of the handler: its traceback holds the batch in memory
                raise Smaller(len(some) // 2)
            if found[0]:
                yield found

    def _tried(self, seeds: list[int]) -> tuple[list[int], NDArray[np.uint8]] | None:
        """None: memory ran out."""
        try:
            return seeds, self._sampled(seeds)
        except NumericalError:
            pass  # the same
        except (MemoryError, RuntimeError) as error:
            memory = isinstance(error, MemoryError) or out_of_memory(error)
            if not memory or len(seeds) == 1:
                raise
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
