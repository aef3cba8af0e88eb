"""Checks of a call's arguments, and of what the network returns while it runs."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from .conditioning import size
from .errors import InputError, NumericalError
from .solvers import Table

__all__ = ["Watch", "as_batch_size", "as_dtype", "as_noise", "as_seeds"]


def as_seeds(seeds: Iterable[int] | None, cond: Any) -> list[int]:
    """The seeds as a list of ints in [0, 2^63); None = one a row of `cond`."""
    if seeds is None:
        if isinstance(cond, Mapping):
            cond = {k: torch.as_tensor(v) for k, v in cond.items()}
            return list(range(size(cond))) if cond else [0]
        return list(range(len(cond))) if hasattr(cond, "__len__") and _has_rows(cond) else [0]
    try:
        values = [operator.index(s) for s in seeds]
    except TypeError as error:
        raise InputError(
            "seeds", f"must be integers ({error})", "Give range(n) or a list"
        ) from error
    if not values:
        raise InputError("seeds", "is empty", "Give one seed a sample, for example range(16)")
    if min(values) < 0 or max(values) >= 2**63:
        raise InputError("seeds", "holds a value outside [0, 2^63)", "Give non-negative integers")
    return values


def _has_rows(cond: Any) -> bool:
    return not (isinstance(cond, Tensor) and cond.dim() == 0)


def as_batch_size(batch_size: int | None) -> int | None:
    """None, or an integer >= 1."""
    if batch_size is None:
        return None
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise InputError("batch_size", f"is {batch_size!r}", "Give an integer >= 1, or None")
    return batch_size


def as_dtype(dtype: torch.dtype | None) -> torch.dtype:
    """The state's dtype: float32 unless float64 is asked for."""
    if dtype is None:
        return torch.float32
    if dtype not in (torch.float32, torch.float64):
        raise InputError(
            "dtype",
            f"is {dtype}",
            "The state is float32 or float64; cast the network for half precision",
        )
    return dtype


def as_noise(
    noise: Tensor | None, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype
) -> Tensor | None:
    """The user's initial unit noise, checked: shape, floating, device, finite."""
    if noise is None:
        return None
    if not isinstance(noise, Tensor):
        raise InputError("noise", f"is a {type(noise).__name__}", "Give a torch.Tensor")
    if tuple(noise.shape) != shape:
        raise InputError("noise", f"has shape {tuple(noise.shape)}", f"Give shape {shape}")
    if not noise.is_floating_point():
        raise InputError("noise", f"has dtype {noise.dtype}", "Give a floating point tensor")
    if noise.device != device:
        raise InputError(
            "noise", f"is on {noise.device}", f"Move it to {device}, where the network is"
        )
    bad = ~torch.isfinite(noise).flatten(1).all(1)
    if bool(bad.any()):
        raise InputError(
            "noise",
            f"holds NaN or Inf in samples {bad.nonzero().flatten().tolist()[:8]}",
            "Give finite unit noise",
        )
    return noise.to(dtype)


class Watch:
    """Finds the first NaN or Inf of a run: at once on the CPU, after the loop on a device (no
    sync)."""

    def __init__(self, device: torch.device) -> None:
        self._at_once = device.type == "cpu"
        self._bad: list[Tensor] = []

    def observe(self, index: int, t: float, cond: Tensor, term: Tensor | None) -> None:
        """Look at one evaluation's results."""
        good = torch.isfinite(cond).flatten(1).all(1)
        if term is not None:
            good = good & torch.isfinite(term).flatten(1).all(1)
        if not self._at_once:
            self._bad.append(~good)
        elif not bool(good.all()):
            raise _numerical(index, t, ~good)

    def finish(self, table: Table) -> None:
        """Raise for the first bad evaluation of a device run (the only host sync)."""
        if not self._bad:
            return
        bad = torch.stack(self._bad).cpu()
        rows = bad.any(1).nonzero().flatten()
        if rows.numel():
            index = int(rows[0])
            raise _numerical(index, table.rows[index].t, bad[index])


def _numerical(index: int, t: float, bad: Tensor) -> NumericalError:
    samples = bad.nonzero().flatten().tolist()
    return NumericalError(
        f"the model gave NaN or Inf at evaluation {index} (t = {t:g}) in samples {samples[:8]} "
        "of its "
        "batch. Check the weights and the network's dtype (half precision overflows: try "
        "float32), and "
        "that the schedule is the one it was trained on."
    )
