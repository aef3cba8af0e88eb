"""What the engine costs beside the network: CFG on a network of one multiplication, against the
plain loop of bench/baselines.py, the two in turn.

    python -m bench.overhead            states of 64x4x128x128 and 8x4x64x64, on the CPU or the GPU
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench import baselines
from reg_engine import Denoiser, Engine, schedules

__all__ = ["main", "ratio"]

SHAPES = ((8, 4, 64, 64), (64, 4, 128, 128))
SCALE, SOLVER = 3.0, "dpmpp_2m"


class Trivial(nn.Module):
    """eps = p x + a number of the label."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(0.9))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return torch.addcmul(0.01 * cond.view(-1, 1, 1, 1).to(x), x, self.p)


def ratio(
    shape: tuple[int, ...], steps: int, repeats: int, device: torch.device
) -> tuple[float, float, float]:
    """Median of (engine / plain loop), and the median seconds a step of each.

    Raises:
        AssertionError: the two do not give the same samples.
    """
    count, *sample = shape
    model = Denoiser(Trivial().to(device), "epsilon", schedules.VPLinear(), sample, 0)
    cond = torch.arange(count, device=device) % 10 + 1
    engine = Engine(
        model, scale=SCALE, rectify=None, solver=SOLVER, steps=steps, progress=False, capture=False
    )
    choices = {"guide": baselines.cfg, "scale": SCALE, "solver": SOLVER, "steps": steps}

    def ours() -> Tensor:
        return engine.sample(cond, seeds=range(count)).samples

    def plain() -> Tensor:
        return baselines.sample(model, cond, range(count), **choices)  # type: ignore[arg-type]

    torch.testing.assert_close(ours(), plain(), rtol=1e-3, atol=1e-3)
    pairs = [(_seconds(ours, device), _seconds(plain, device)) for _ in range(repeats)]
    medians = (statistics.median(times) / steps for times in zip(*pairs, strict=True))
    return statistics.median(a / b for a, b in pairs), *medians  # type: ignore[return-value]


def _seconds(run: Callable[[], Tensor], device: torch.device) -> float:
    begun = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def main() -> None:
    """Print a table of both sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    device = torch.device(given.device)
    print("| state | engine, ms a step | plain loop, ms a step | ratio |")
    print("|---|---|---|---|")
    for shape in SHAPES:
        quotient, ours, plain = ratio(shape, given.steps, given.repeats, device)
        size = "x".join(map(str, shape))
        print(f"| {size} | {1e3 * ours:.2f} | {1e3 * plain:.2f} | {quotient:.2f} |", flush=True)


if __name__ == "__main__":
    main()
