"""What writing costs beside sampling: `reg-engine generate`'s shards against the bare batches.

python docs/generation_cost.py [IMAGES]  (default 400, a process; two processes at once)
python docs/generation_cost.py plan      what planning costs: seconds, and memory (Linux)
"""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from reg_engine import Engine, load_model
from reg_engine.generation import Job, OfLabels, Records, Uniform, generate

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


def peak() -> float:
    """Most memory of this process so far, in MB."""
    return float(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1e3


def plan() -> None:
    """Say what the shards of a job cost before any is made, and what this process has without."""
    print(f"import torch: {run_alone('import torch'):.0f} MB, ", end="")
    print(f"with reg_engine.generation: {run_alone('import reg_engine.generation'):.0f} MB")
    for images in (50_000, 10_000_000):
        before, begun = peak(), time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            missing = Records(folder, Job((range(images),), Uniform(10)), "").missing()
        seconds, more = time.perf_counter() - begun, peak() - before
        print(f"{images:,} images, {len(missing):,} shards: {seconds:.2f} s, {more:.1f} MB more")


def run_alone(code: str) -> float:
    """Peak memory in MB of a process that does nothing else."""
    code += "; print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return float(found.stdout) / 1e3


def main() -> None:
    if sys.argv[1:] == ["plan"]:
        return plan()
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
