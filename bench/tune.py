"""Launch parameters of the Triton kernels, measured: `python -m bench.tune [--dry]`.

Prints what was tried and, last, what belongs into kernels/tuned/<device>.json: for each op the
parameters whose times, over the default's, have the least geometric mean over CASES. `--dry` runs
on the CPU, in Triton's interpreter, at a tiny size.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from reg_engine.kernels import tuning

from bench import kernels
from bench.cases import KERNEL_CASES, KernelCase
from bench.smoke import KERNELS
from bench.timing import Call, interleaved, percentiles
from reg_engine import ops

__all__ = ["best", "main"]

Parameters = dict[str, int]
CASES = ("latent-512-bf16", "pixel-256-bf16", "pixel-256-fp32", "pixel-1024-bf16")
GAIN = 0.98  # of the default's time: what is less is noise
LAUNCHES = [(512, 4), (1024, 4), (1024, 8), (2048, 4), (2048, 8), (4096, 8)]
SUMS = [(512, 2, 8), (512, 4, 8), (1024, 4, 2), (1024, 4, 8), (1024, 8, 4), (2048, 8, 4)]


def candidates(op: str) -> list[Parameters]:
    """What is tried for an op, the default first."""
    default = json.loads((tuning.FOLDER / f"{tuning.DEFAULT}.json").read_text("utf-8"))[op]
    if op == "reduce":
        found = [{"BLOCK": b, "PARTS": p, "num_warps": w} for b, w, p in SUMS]
    else:
        found = [{"BLOCK": b, "num_warps": w} for b, w in LAUNCHES]
    return [default, *(each for each in found if each != default)]


@contextmanager
def using(op: str, parameters: Parameters) -> Iterator[None]:
    """Launch an op with these parameters."""
    kept = tuning.FOLDER
    with tempfile.TemporaryDirectory() as folder:
        default = json.loads((kept / f"{tuning.DEFAULT}.json").read_text("utf-8"))
        text = json.dumps({**default, op: parameters})
        (Path(folder) / f"{tuning.DEFAULT}.json").write_text(text, "utf-8")
        tuning.FOLDER = Path(folder)
        forget()
        try:
            yield
        finally:
            tuning.FOLDER = kept
            forget()


def forget() -> None:
    """The files are read anew."""
    tuning.launch_parameters.cache_clear()
    tuning._file.cache_clear()


def best(times: Sequence[Sequence[float]]) -> int:
    """The candidate with the least geometric mean over the cases of its time over the first's;
    the first unless that is below GAIN.

    Args:
        times: of each candidate, a time for each case.
    """
    means = [
        statistics.geometric_mean(t / first for t, first in zip(row, times[0], strict=True))
        for row in times
    ]
    found = min(range(len(means)), key=means.__getitem__)
    return found if means[found] < GAIN else 0


def tuned(op: kernels.Kernel, cases: Sequence[KernelCase], device: torch.device) -> Parameters:
    """The best parameters of an op; prints what was measured."""
    tried = candidates(op.name)
    times: list[list[float]] = [[] for _ in tried]
    for case in cases:
        sets = kernels.inputs(op, case, device)[:64]
        calls: dict[str, list[Call]] = {}
        for number, parameters in enumerate(tried):
            plain = kernels.contender(op, sets, "triton", "eager")
            calls[str(number)] = [partial(launch, op.name, parameters, c) for c in plain]
        found = interleaved(calls, device, rounds=5)
        for number in range(len(tried)):
            times[number].append(percentiles(found[str(number)])[1])
    for parameters, row in zip(tried, times, strict=True):
        microseconds = " ".join(f"{1e6 * seconds:9.1f}" for seconds in row)
        print(f"{op.name:12} {microseconds} us  {parameters}", flush=True)
    return tried[best(times)]


def launch(op: str, parameters: Parameters, call: Call) -> None:
    """Call with these parameters."""
    with using(op, parameters):
        call()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry", action="store_true", help="on the CPU, at a tiny size")
    asked = parser.parse_args()
    device = torch.device("cpu" if asked.dry else "cuda")
    state = ops.available(device)["triton"]
    if state != "works":
        print(f"triton: {state}: nothing to tune")
        return
    cases = KERNEL_CASES["tiny"] if asked.dry else KERNEL_CASES["real"]
    cases = cases[:1] if asked.dry else tuple(case for case in cases if case.name in CASES)
    print("cases", *(case.name for case in cases))
    found = {op.name: tuned(op, cases, device) for op in KERNELS}
    lines = [f'  "{op}": {json.dumps(parameters)}' for op, parameters in found.items()]
    print(f"kernels/tuned/{tuning.device_name(device)}.json:")
    print("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    main()
