"""What rectified guidance costs on the packaged models, against the plain eager loop of CFG in
bench/baselines.py, all in turn.

    python -m bench.price                   MNIST and Fashion-MNIST; CPU seconds
    python -m bench.price --device cuda     wall seconds, and what CUDA graphs make of it
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from bench import baselines
from reg_engine import Denoiser, Engine, calibrate_damping, load_model

__all__ = ["main", "ratios"]

CASES = (("mnist", "heun", 18), ("fashion", "dpmpp_2m", 10), ("fashion", "dpmpp_2m", 32))
ESTIMATORS = (None, "alternate", "lazy", "lazy_blend", "fd_batched", "vjp", "paper")
CAPTURED = (None, "fd_batched", "vjp")  # alternate and lazy ask the device what is due
SCALE, SKIP = 3.0, 0.15


def ways(model: Denoiser) -> dict[str, dict[str, Any]]:
    """What is compared: estimators, and dampings, which are calibrated before."""
    labels = torch.arange(10, device=model.device)
    damping = calibrate_damping(model, labels, seeds=range(10), steps=10, progress=False)
    guided = {name or "CFG": {"scale": SCALE, "rectify": name} for name in ESTIMATORS}
    damped = {
        "damping": {"scale": damping(SCALE)},
        f"damping, skip {SKIP}": {"scale": damping(SCALE, skip_below=SKIP)},
    }
    found: dict[str, dict[str, Any]] = {**guided, **damped}
    if model.device is not None and model.device.type == "cuda":
        fixed = {name or "CFG": guided[name or "CFG"] for name in CAPTURED} | damped
        found |= {f"{name}, captured": {**way, "capture": True} for name, way in fixed.items()}
    return found


def ratios(
    model: Denoiser, solver: str, steps: int, samples: int, repeats: int, device: torch.device
) -> dict[str, tuple[float, float]]:
    """Median of (way / plain loop) in seconds, and evaluations a sample, for every way."""
    cond, seeds = torch.arange(samples, device=device) % 10, range(samples)
    choices = {"guide": baselines.cfg, "scale": SCALE, "solver": solver, "steps": steps}
    for module in model.modules:
        module.to(device)
    common = {"solver": solver, "steps": steps, "device": device, "progress": False}
    engines = {
        name: Engine(model, **common, **{"capture": False, **way})  # type: ignore[arg-type]
        for name, way in ways(model).items()
    }
    for engine in engines.values():  # what is settled, captured and compiled once is not timed
        engine.sample(cond, seeds=seeds)

    def plainly() -> None:
        baselines.sample(model, cond, seeds, **choices)  # type: ignore[arg-type]

    quotients: dict[str, list[float]] = {name: [] for name in engines}
    nfe = {}
    for _ in range(repeats):
        plain = _seconds(plainly, device)
        for name, engine in engines.items():

            def ours(engine: Engine = engine, name: str = name) -> None:
                nfe[name] = engine.sample(cond, seeds=seeds).stats.nfe

            quotients[name].append(_seconds(ours, device) / plain)
    return {name: (statistics.median(values), nfe[name]) for name, values in quotients.items()}


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """CPU seconds of this process, which other work hardly moves; on a GPU, wall seconds."""
    if device.type != "cuda":
        began = time.process_time()
        work()
        return time.process_time() - began
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    torch.cuda.synchronize(device)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    titles = [f"{name}, {solver} {steps}" for name, solver, steps in CASES]
    columns = []
    for name, solver, steps in CASES:
        device = torch.device(given.device)
        columns.append(
            ratios(load_model(name), solver, steps, given.samples, given.repeats, device)
        )
    print("| seconds / plain CFG (evaluations) | " + " | ".join(titles) + " |")
    print("|---" * (len(CASES) + 1) + "|")
    for way in columns[0]:
        cells = (f"{column[way][0]:.2f} ({column[way][1]:.1f})" for column in columns)
        print(f"| {way} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
