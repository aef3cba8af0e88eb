"""Jobs for the tests of reg_engine/generation: a sampler without a network, and workers."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reg_engine.errors import NumericalError
from reg_engine.generation import Job, Uniform, generate
from reg_engine.generation.records import Records
from reg_engine.loop.stats import Stats

SIDE = 6


def picture(label: int, seed: int, channels: int = 1) -> np.ndarray:
    """(H, W, C) uint8, of a label and a seed."""
    return np.random.default_rng([label, seed]).integers(
        0, 256, (SIDE, SIDE, channels), dtype=np.uint8
    )


class Numbers:
    """A sampler whose pictures are random numbers; it notes its batches.

    Args:
        bad: seeds that give NaN. most: a larger batch runs out of memory.
        before: called with the seeds of a batch.
    """

    def __init__(
        self,
        bad: Sequence[int] = (),
        most: int = 1 << 30,
        channels: int = 1,
        before: Callable[[list[int]], object] = lambda seeds: None,
    ) -> None:
        self.bad, self.most, self.channels, self.before = bad, most, channels, before
        self.batches: list[list[int]] = []
        self.settled: list[tuple[int, int]] = []
        self.stats = Stats()

    def __call__(self, labels: Sequence[Any], seeds: Sequence[int]) -> Tensor:
        self.before(list(seeds))
        if len(seeds) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if set(self.bad) & set(seeds):
            raise NumericalError("the model gave NaN")
        self.batches.append(list(seeds))
        pairs = zip(labels, seeds, strict=True)
        return torch.from_numpy(np.stack([picture(a, b, self.channels) for a, b in pairs]))

    def settle(self, label: int, seed: int) -> None:
        self.settled.append((label, seed))

    def fingerprint(self) -> str:
        return f"numbers of {self.channels}"


def job(images: int = 26, **given: Any) -> Job:
    """Shards of 8, in batches of 4."""
    seeds = given.pop("seeds", (range(images),))
    return Job(seeds, Uniform(10), **{"batch_size": 4, "shard_size": 8, **given})


def made(out: Path, sampler: Any = None, what: Job | None = None, **given: Any) -> list[Any]:
    """Run a worker to its end."""
    return list(generate(sampler or Numbers(), what or job(), out, **given))


def opened(out: Path, what: Job | None = None, sampler: Any = None) -> Records:
    records = Records(out, what or job(), (sampler or Numbers()).fingerprint())
    records.open()
    return records


def tree(out: Path) -> dict[str, bytes]:
    """Every file below the folder."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def worker(out: Path, what: Job, before: Any = None, **given: Any) -> Any:
    """A process that works on the job; started."""
    context = multiprocessing.get_context("fork")  # a new interpreter would import torch

    def work() -> None:
        sampler = Numbers() if before is None else Numbers(before=before)
        for _ in generate(sampler, what, out, **given):
            pass

    process = context.Process(target=work)
    process.start()
    return process
