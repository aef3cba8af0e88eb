"""Runs that are killed at random moments and go on; `python kill_runs.py RUN FOLDER KILLS SEED`.

Each attempt is forked from a process that has imported everything, so that the moments fall into
the work and not into the imports. Prints how many attempts were killed, and in how many the run had
left something behind by then.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tiny_runs import tiny

from reg_engine.cli import cli
from reg_engine.experiments import reg_1d, run_experiment

FAST = ["--steps", "2", "--batch-size", "3", "--no-progress", "--rectify"]


def sample(folder: Path) -> None:
    """Eight batches, for an archive."""
    cli.main(
        ["sample", *FAST, "vjp", "--labels", "0-7", "--per-label", "3", "--out", f"{folder}/s.npz"],
        standalone_mode=False,
    )


def train(folder: Path) -> None:
    """Sixty steps, a checkpoint after each."""
    assert tiny(folder / "run").run()


def evaluate(folder: Path) -> None:
    """Two methods at two scales, judged."""
    data = folder.parent / "mnist.npz"
    arguments = [*FAST, "none,vjp", "--scales", "1,2", "--samples", "12", "--data", str(data)]
    cli.main(["evaluate", *arguments, "--out", f"{folder}/e"], standalone_mode=False)


def experiment(folder: Path) -> None:
    """Networks trained, chains simulated, a page with figures."""
    reg_1d.main.QUICK = reg_1d.main.Size(points=250, repeats=2, steps=40, batch_size=32)
    run_experiment("reg-1d", folder, quick=True)


RUNS: dict[str, Callable[[Path], None]] = {
    each.__name__: each for each in (sample, train, evaluate, experiment)
}


def attempt(run: Callable[[Path], None], folder: Path, after: float | None) -> bool:
    """Run in a child and kill it `after` so many seconds; whether it came to its end."""
    child = os.fork()
    if child == 0:
        os.setsid()
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        try:
            run(folder)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the run failed"
    return os.WIFEXITED(status)


def make_data(path: Path) -> None:
    """An mnist.npz of noise, for the judge of `evaluate`."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    labels = np.arange(40) % 10
    with path.open("wb") as file:
        np.savez(file, x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)


def main(name: str, place: Path, kills: int, seed: int) -> None:
    """Leave an undisturbed run in PLACE/whole, and those that were killed in PLACE/killed-*."""
    torch.set_num_threads(1)
    make_data(place / "mnist.npz")
    (place / "whole").mkdir()
    begun = time.monotonic()
    attempt(RUNS[name], place / "whole", None)
    seconds, draw = time.monotonic() - begun, random.Random(seed)
    done = written = runs = 0
    while True:
        folder = place / f"killed-{runs}"
        folder.mkdir(exist_ok=True)
        after = draw.uniform(0, 0.8 * seconds) if done < kills else None
        if not attempt(RUNS[name], folder, after):
            done += 1
            written += any(folder.iterdir())
        elif after is None:
            break
        else:
            runs += 1  # at its end before it was killed: the next one begins anew
    print(f"{name}: {done} kills, {written} of them after something was written, {runs + 1} runs")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
