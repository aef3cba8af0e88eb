"""reduce: all sums and dot products of three tensors, sample by sample, in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.cases import KernelCase
from bench.kernels import Arguments, Kernel


def arguments(case: KernelCase, device: torch.device) -> Arguments:
    """Three vectors a sample, as the lagged direction takes them."""
    dtype = getattr(torch, case.dtype)
    return {name: torch.randn(case.shape, device=device, dtype=dtype) for name in ("u", "v", "w")}


def bytes_moved(case: KernelCase) -> int:
    """Three reads; what is written is negligible."""
    return 3 * case.numel * case.itemsize


def exact(u: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """Every entry as one sum: torch sums in a tree, where a matrix product may run straight."""
    rows = [torch.ones_like(u).flatten(1), *(t.flatten(1) for t in (u, v, w))]
    return torch.stack([torch.stack([(a * b).sum(1) for b in rows], 1) for a in rows], 1)


KERNEL = Kernel("reduce", arguments, bytes_moved, exact=exact)


def test_reduce(kernel_bench, kernel_case, provider):
    kernel_bench(KERNEL, kernel_case, provider)
