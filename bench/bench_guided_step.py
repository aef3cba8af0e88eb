"""guided_step: guide, convert, update the solver and remember, in one pass."""

from __future__ import annotations

import torch

from bench.cases import KernelCase
from bench.kernels import Arguments, Kernel, coefficients

STATE = 4  # bytes of a float32


def arguments(case: KernelCase, device: torch.device) -> Arguments:
    """Everything the step can take: a rectifier's factor, noise, and a ring of two."""
    dtype = getattr(torch, case.dtype)
    table, step = coefficients(device, slots=2)
    names = ("cond", "ref", "term")
    predictions = {name: torch.randn(case.shape, device=device, dtype=dtype) for name in names}
    return {
        "x": torch.randn(case.shape, device=device),
        **predictions,
        "table": table,
        "step": step,
        "noise": torch.randn(case.shape, device=device),
        "history": torch.randn(2, *case.shape, device=device),
    }


def bytes_moved(case: KernelCase) -> int:
    """Reads x, cond, ref, term, noise and one slot; writes x and one slot."""
    return case.numel * (3 * case.itemsize + 3 * STATE + 2 * STATE)


KERNEL = Kernel("guided_step", arguments, bytes_moved, in_place=True)


def test_guided_step(kernel_bench, kernel_case, provider):
    kernel_bench(KERNEL, kernel_case, provider)
