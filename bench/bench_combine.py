"""combine: guided = cond + w term (cond - ref), three tensors read and one written."""

from __future__ import annotations

import torch

from bench.cases import KernelCase
from bench.kernels import Arguments, Kernel


def arguments(case: KernelCase, device: torch.device) -> Arguments:
    """cond, ref and the elementwise rectifier, at scale 4."""
    dtype = getattr(torch, case.dtype)
    names = ("cond", "ref", "term")
    tensors = {name: torch.randn(case.shape, device=device, dtype=dtype) for name in names}
    return {**tensors, "w": 3.0}


def bytes_moved(case: KernelCase) -> int:
    """Three reads, one write."""
    return 4 * case.numel * case.itemsize


KERNEL = Kernel("combine", arguments, bytes_moved)


def test_combine(kernel_bench, kernel_case, provider):
    kernel_bench(KERNEL, kernel_case, provider)
