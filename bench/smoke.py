"""`python -m bench.smoke` : is what a GPU runs right? One process, no pytest, under a minute.

Every kernel of every backend against float64; then, on a tiny network, every estimator captured
against eager, bit for bit. Tables of one and two rows come last: what runs past a table takes the
whole process with it. The last lines are "kernels: green" and "capture: green", or red.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Iterator

import torch

from bench import kernels
from bench.bench_combine import KERNEL as COMBINE
from bench.bench_guided_step import KERNEL as STEP
from bench.bench_probe import KERNEL as PROBE
from bench.bench_reduce import KERNEL as REDUCE
from bench.cases import KERNEL_CASES
from bench.duals import CASES, DUALS
from bench.records import ROOT
from reg_engine import Engine
from reg_engine.loop.graphs import Graphs
from reg_engine.rectifiers import RECTIFIERS, looks

sys.path.append(str(ROOT / "tests"))  # the tests' tiny network, and their recorder without a GPU

KERNELS = (COMBINE, STEP, PROBE, REDUCE)
Check = tuple[str, Callable[[], None]]


def kernel_checks(device: torch.device) -> Iterator[Check]:
    """Each backend that works here at 8 shapes (2 on a CPU)."""
    cases = KERNEL_CASES["tiny"] + (KERNEL_CASES["shrunk"] if device.type == "cuda" else ())
    for provider in ("triton", "csrc"):
        why = kernels.unable(provider, device)
        if why:
            print(f"{provider}: left out: {why}", flush=True)
            continue
        for kernel in KERNELS:
            for case in cases:
                yield (
                    f"{kernel.name} {case.name} {provider}",
                    lambda k=kernel, c=case, p=provider: kernels.check(k, c, p, device, "eager"),
                )
    if not kernels.unable("triton", device):
        sizes = ("tiny", "shrunk") if device.type == "cuda" else ("tiny",)
        for kernel in DUALS:
            for case in (case for size in sizes for case in CASES[kernel.name][size]):
                yield (
                    f"{kernel.name} {case.name} triton",
                    lambda k=kernel, c=case: kernels.check(k, c, "triton", device, "eager"),
                )


def capture_checks(device: torch.device) -> Iterator[Check]:
    """Heun and DDPM at five steps, then one and two rows."""
    for steps in (5, 2, 1):
        for solver in ("heun", "ddpm") if steps == 5 else ("euler", "ddpm"):
            for rectify in (None, *(name for name in RECTIFIERS if not looks(name))):
                yield (
                    f"captured {solver} {steps} {rectify}",
                    lambda s=solver, n=steps, r=rectify: captured_is_eager(device, s, n, r),
                )


def captured_is_eager(device: torch.device, solver: str, steps: int, rectify: str | None) -> None:
    """Raise AssertionError unless it is, bit for bit, also for other seeds and labels.

    Without CUDA the recorder of the tests stands for graphs: it warms up as CUDA does.
    """
    from nets import tiny
    from rerun import Rerun

    choices = {"solver": solver, "steps": steps, "rectify": rectify, "scale": 2.5}
    choices |= {"device": str(device), "progress": False}
    cuda = device.type == "cuda"
    eager = Engine(tiny(), capture=False, **choices)
    captured = Engine(tiny(), capture=cuda, **choices)
    if not cuda:
        captured._graphs = Graphs(Rerun(), always=True)
    for seeds in (range(3), range(7, 10)):
        a, b = (e.sample([0, 1, 2], seeds=seeds) for e in (eager, captured))
        assert b.stats.capture == "captured", b.stats.capture
        error = float((a.samples - b.samples).abs().max())
        assert torch.equal(a.samples, b.samples), f"off by {error:.3g}"


def run(name: str, checks: Iterator[Check]) -> bool:
    """Run all, say what is red, and end with the verdict."""
    red = []
    count = 0
    for label, check in checks:
        count += 1
        try:
            check()
        except Exception:
            red.append(label)
            print(f"RED {label}", flush=True)
            traceback.print_exc()
            sys.stderr.flush()
    print(f"{name}: {'red' if red else 'green'}, {len(red)} of {count} red", flush=True)
    return not red


def main() -> int:
    """Exit status 1 where anything is red."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    device = torch.device(parser.parse_args().device)
    torch.manual_seed(0)
    good = [run("kernels", kernel_checks(device)), run("capture", capture_checks(device))]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
