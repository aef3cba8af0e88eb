"""reduce: all sums and dot products of three tensors, sample by sample, in one pass."""

from __future__ import annotations

import torch

from bench.cases import KernelCase
from bench.kernels import Arguments, Kernel


def arguments(case: KernelCase, device: torch.device) -> Arguments:
    """Three vectors a sample, as the lagged direction takes them."""
    dtype = getattr(torch, case.dtype)
    return {name: torch.randn(case.shape, device=device, dtype=dtype) for name in ("u", "v", "w")}


def bytes_moved(case: KernelCase) -> int:
    """Three reads; what is written is negligible."""
    return 3 * case.numel * case.itemsize


KERNEL = Kernel("reduce", arguments, bytes_moved, sums=True)


def test_reduce(kernel_bench, kernel_case, provider):
    kernel_bench(KERNEL, kernel_case, provider)
