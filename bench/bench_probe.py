"""probe: the batched network input [x; x; x + h d], scaled and cast, in one pass."""

from __future__ import annotations

import torch

from bench.cases import KernelCase
from bench.kernels import Arguments, Kernel, coefficients

STATE = 4  # bytes of a float32


def arguments(case: KernelCase, device: torch.device) -> Arguments:
    """The three rows of `fd_batched`, in the network's dtype."""
    dtype = getattr(torch, case.dtype)
    table, step = coefficients(device, slots=1)
    return {
        "x": torch.randn(case.shape, device=device),
        "direction": torch.randn(case.shape, device=device),
        "length": torch.rand(case.shape[0], device=device),
        "table": table,
        "step": step,
        "copies": 2,
        "dtype": dtype,
    }


def bytes_moved(case: KernelCase) -> int:
    """Reads the state and the direction, writes three inputs."""
    return case.numel * (2 * STATE + 3 * case.itemsize)


KERNEL = Kernel("probe", arguments, bytes_moved)


def test_probe(kernel_bench, kernel_case, provider):
    kernel_bench(KERNEL, kernel_case, provider)
