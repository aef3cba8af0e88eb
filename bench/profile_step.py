"""Runs every kernel alone, for `ncu --clock-control none python -m bench.profile_step`.

Large enough that one launch is far longer than its overhead. `--dry` runs on the CPU, tiny.
"""

from __future__ import annotations

import sys

import torch

from bench.cases import KERNEL_CASES, KernelCase
from bench.smoke import KERNELS
from reg_engine import ops

CASE = KernelCase("profiled", (8, 3, 1024, 1024), "bfloat16")
LAUNCHES = 2


def main(dry: bool = False) -> None:
    """Every backend that works here; without CUDA there is nothing to profile."""
    if not dry and not torch.cuda.is_available():
        raise SystemExit("torch.cuda.is_available() is False: nothing to profile")
    device = torch.device("cpu" if dry else "cuda")
    for backend, state in ops.available(device).items():
        print(f"{backend}: {state}")
        if state != "works" or backend == "reference":
            continue
        for kernel in KERNELS:
            given = kernel.arguments(KERNEL_CASES["tiny"][1] if dry else CASE, device)
            if kernel.in_place:
                given["out"] = torch.empty_like(given["x"])
            for _ in range(LAUNCHES):
                getattr(ops, kernel.name)(**given, backend=backend)
    if not dry:
        torch.cuda.synchronize()


if __name__ == "__main__":
    main("--dry" in sys.argv[1:])
