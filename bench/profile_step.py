"""Runs the fused step alone, for `ncu --clock-control none python -m bench.profile_step`.

Large enough that one launch is far longer than its overhead; five launches.
"""

from __future__ import annotations

import torch

from bench.bench_guided_step import KERNEL
from bench.cases import KernelCase
from reg_engine import ops

CASE = KernelCase("profiled", (8, 3, 1024, 1024), "bfloat16")
LAUNCHES = 5


def main() -> None:
    """Every backend that works here; without CUDA there is nothing to profile."""
    if not torch.cuda.is_available():
        raise SystemExit("torch.cuda.is_available() is False: nothing to profile")
    device = torch.device("cuda")
    given = KERNEL.arguments(CASE, device)
    given["out"] = torch.empty_like(given["x"])
    for backend, state in ops.available(device).items():
        print(f"{backend}: {state}")
        if state == "works" and backend != "reference":
            for _ in range(LAUNCHES):
                ops.guided_step(**given, backend=backend)
    torch.cuda.synchronize()


if __name__ == "__main__":
    main()
