"""What writing costs beside sampling: `reg-engine generate`'s shards against the bare batches.

python docs/generation_cost.py [IMAGES]  (default 400, a process; two processes at once)
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import torch

from reg_engine import Engine, load_model
from reg_engine.generation import Job, OfLabels, Uniform, generate

PROCESSES, BATCH, STEPS = 2, 50, 18


def measure(folder: Path, rank: int, images: int) -> tuple[float, float]:
    """Seconds of sampling alone, inside of the calls, and of all from the first batch on."""
    torch.set_num_threads(1)
    engine = Engine(load_model("mnist"), scale=4.0, steps=STEPS, batch_size=BATCH, progress=False)
    sampler = OfLabels(engine)
    seeds = range(rank * images, (rank + 1) * images)
    job = Job((seeds,), Uniform(10), batch_size=BATCH, shard_size=4 * BATCH)
    total = sum(shard.seconds for shard in generate(sampler, job, folder / str(rank)))
    return sampler.stats.seconds, total


def main() -> None:
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        with context.Pool(PROCESSES) as pool:
            work = [(Path(folder), rank, images) for rank in range(PROCESSES)]
            begun = time.perf_counter()
            rows = pool.starmap(measure, work)
            elapsed = time.perf_counter() - begun
    for rank, (alone, total) in enumerate(rows):
        over = total / alone - 1
        print(
            f"process {rank}: {images} images, {alone:.1f} s sampling, {total:.1f} s in all, "
            f"{over:.1%} more"
        )
    print(f"{PROCESSES * images / elapsed:.1f} images/s with start and end")


if __name__ == "__main__":
    main()
