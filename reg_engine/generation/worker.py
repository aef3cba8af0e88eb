"""One worker of a job: it makes what is neither done nor somebody's, until nothing is left.

Workers know of each other by the folder alone. They come and go at will; what a lost one had in
hand is taken over, and whoever finds everything done writes the manifest.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import InputError, choice
from ..values import as_int
from .finish import finish, finished, tidy
from .job import Job
from .leases import Leases
from .making import Finished, make
from .records import DONE, Records
from .sampling import Sampler

__all__ = ["Worker", "end", "generate", "part_of"]

_WAIT = 1.0  # seconds between two looks at shards that others have in hand


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
        settings: what people should read of the sampler in OUT/job.json; see Records.
        stop: asked before each shard: True = begin no other.

    Raises:
        InputError: a bad argument; a folder of other settings; a full disk. NumericalError: NaN or
            Inf, with the seeds. Finished shards stay, and the same call goes on.
    """
    mine = part_of(job, part)
    choice("on_error", on_error, ("skip", "stop"))
    records = Records(out, job, sampler.fingerprint(), settings)
    records.open()
    todo = [number for number in records.missing() if number in mine]
    first = int(len(todo) * (start % 1.0))
    worker = Worker(sampler, records, on_error, expiry)
    try:
        yield from worker.passes(todo[first:] + todo[:first], stop)
        if not stop():
            end(records, worker.leases, wait=part == (0, 1))
    finally:
        worker.close()


class Worker:
    """What makes shards, with all that it keeps from one to the next.

    Args:
        sampler: of the job. records: of its folder, opened.
        on_error, expiry: see generate.
    """

    def __init__(self, sampler: Sampler, records: Records, on_error: str, expiry: float) -> None:
        self.on_error = choice("on_error", on_error, ("skip", "stop"))
        self.sampler, self.records = sampler, records
        self.leases = Leases(records.out / "leases", expiry)
        self.size = records.job.batch_size  # smaller once memory has run out
        self._settled = False

    def passes(
        self, numbers: Sequence[int], stop: Callable[[], bool] = lambda: False
    ) -> Iterator[Finished]:
        """Over and over what is left of these: made here, or waited for while it is somebody's."""
        left = dict.fromkeys(numbers)
        while left and not stop():
            before = len(left)
            for number in list(left):
                if stop():
                    return
                made = None
                if self.records.done(f"{number:06d}") is None:
                    if not self.leases.take(f"{number:06d}"):
                        continue
                    made = self._made(number)
                del left[number]
                if made is not None:
                    yield made._replace(done=self.records.count())
            if len(left) == before:
                time.sleep(min(_WAIT, self.leases.expiry / 4))

    def close(self) -> None:
        """Give back what is in hand."""
        self.leases.close()

    def _made(self, number: int) -> Finished | None:
        """A shard whose lease this worker has; None: its owner ended just before."""
        records, name = self.records, f"{number:06d}"
        try:
            if records.done(name) is not None:
                return None
            if not self._settled:  # on the job's first image, whoever begins where
                seed = records.job.shard(0).seeds[0]
                self.sampler.settle(records.job.labels.of(seed), seed)
                self._settled = True
            shard = records.job.shard(number)
            made = make(self.sampler, records, shard, self.size, self.on_error)
            self.size = made.batch_size
            return made
        finally:
            self.leases.drop(name)


def part_of(job: Job, part: tuple[int, int]) -> range:
    """Numbers of the shards of part (i, n).

    Raises:
        InputError: i is not in [0, n).
    """
    index, parts = as_int("part", part[0], 0), as_int("part", part[1])
    if index >= parts:
        raise InputError("part", f"is {index} of {parts}", f"Give 0 to {parts - 1}")
    return range(index, job.shards, parts)


def end(records: Records, leases: Leases, wait: bool) -> None:
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
