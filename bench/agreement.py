"""Whether two computations of the same thing agree: a wrong result is not worth timing."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["check_kernel", "check_rectified"]

MARGIN = 0.1  # of what the rectifier changes: finite differences in float32 stay far below


def check_kernel(name: str, out: Tensor, plain: Tensor, exact: Tensor, terms: int = 1) -> None:
    """The error against float64 is at most twice that of plain torch, plus one rounding.

    Args:
        terms: how many are summed into one element. Where plain torch computes in float64 itself
            it has no error to compare with, and another order of summation rounds like a random
            walk of that many steps.

    Raises:
        AssertionError: it is more, or something is not finite.
    """
    assert torch.isfinite(out).all(), f"{name}: not finite"
    error, usual = ((t.double() - exact).abs().max().item() for t in (out, plain))
    rounding = math.sqrt(terms) * torch.finfo(out.dtype).eps * exact.abs().max().item()
    assert error <= 2 * usual + rounding, f"{name}: error {error:.3g}, plain torch {usual:.3g}"


def check_rectified(name: str, out: Tensor, exact: Tensor, unrectified: Tensor) -> None:
    """Samples are those of the exact product, and not those of plain guidance.

    Raises:
        AssertionError: they are further away than MARGIN of the rectifier's own effect.
    """
    effect = (unrectified - exact).norm().item()
    error = (out - exact).norm().item()
    assert effect > 1e-4 * exact.norm().item(), f"{name}: rectifying changed nothing ({effect:.3g})"
    assert error <= MARGIN * effect, f"{name}: off by {error:.3g}; rectifying moves {effect:.3g}"
