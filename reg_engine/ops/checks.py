"""Checks of the ops' arguments, before anything is launched: shapes, dtypes and devices."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from .coefficients import FIRST_B
from .formulas import traced

__all__ = ["FLOATS", "check_combine", "check_guided_step", "check_probe", "check_reduce"]

STATES = (torch.float32, torch.float64)
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def check_combine(
    cond: Tensor, ref: Tensor | None, term: Tensor | None, channels: int, out: Tensor | None
) -> None:
    """Raise InputError unless the arguments fit `ops.combine`."""
    _predictions("cond", cond, None, ref=ref, term=term)
    _channels(cond, channels)
    if out is not None:
        _alike("out", out, cond.shape, cond.device, (cond.dtype,))


def check_guided_step(
    x: Tensor,
    cond: Tensor,
    table: Tensor,
    step: Tensor,
    ref: Tensor | None,
    term: Tensor | None,
    weight: Tensor | None,
    gain: Tensor | None,
    noise: Tensor | None,
    history: Tensor | None,
    nonfinite: Tensor | None,
    channels: int,
    out: Tensor | None,
) -> None:
    """Raise InputError unless the arguments fit `ops.guided_step`."""
    if x.dtype not in STATES or x.dim() < 1:
        raise InputError(
            "x", f"is {x.dtype} of shape {tuple(x.shape)}", "Give a float32 or float64 batch"
        )
    _predictions("cond", cond, x, ref=ref, term=term)
    _channels(x, channels)
    _table(table, step, x)
    for name, value in (("weight", weight), ("gain", gain)):
        if value is not None:
            _alike(name, value, x.shape[:1], x.device, (x.dtype,))
    if nonfinite is not None:
        _alike("nonfinite", nonfinite, (len(table), len(x)), x.device, (x.dtype,))
        if not nonfinite.is_contiguous():
            raise InputError("nonfinite", "is not contiguous", "Give zeros (rows, B)")
    if noise is not None:
        _alike("noise", noise, x.shape, x.device, (x.dtype,))
    if out is not None:
        _alike("out", out, x.shape, x.device, (x.dtype,))
    slots = table.shape[1] - FIRST_B
    if history is None:
        if slots > 1:
            raise InputError(
                "history",
                f"is None, the table's rows read {slots} values of d",
                f"Give a ring of shape {(slots, *x.shape)}",
            )
        return
    _alike("history", history, (history.shape[0], *x.shape), x.device, (x.dtype,))
    if history.shape[0] < slots or not history.is_contiguous():
        raise InputError(
            "history",
            f"has shape {tuple(history.shape)}, strides {history.stride()}",
            f"Give a contiguous ring of {slots} slots or more: {(slots, *x.shape)}",
        )


def check_reduce(u: Tensor, v: Tensor | None, w: Tensor | None) -> None:
    """Raise InputError unless the arguments fit `ops.reduce`."""
    if v is None and w is not None:
        raise InputError("v", "is None, w is given", "Give the second vector as v")
    _predictions("u", u, None, v=v, w=w)


def check_probe(
    x: Tensor,
    direction: Tensor,
    length: Tensor,
    table: Tensor,
    step: Tensor,
    copies: int,
    dtype: torch.dtype | None,
) -> None:
    """Raise InputError unless the arguments fit `ops.probe`."""
    if x.dtype not in STATES or x.dim() < 1:
        raise InputError(
            "x", f"is {x.dtype} of shape {tuple(x.shape)}", "Give a float32 or float64 batch"
        )
    _alike("direction", direction, x.shape, x.device, FLOATS)
    _alike("length", length, x.shape[:1], x.device, (x.dtype,))
    _table(table, step, x)
    if copies < 0:
        raise InputError("copies", f"is {copies}", "Give a number >= 0")
    if dtype is not None and dtype not in FLOATS:
        raise InputError("dtype", f"is {dtype}", f"Give one of {_names(FLOATS)}")


def _predictions(name: str, first: Tensor, x: Tensor | None, **others: Tensor | None) -> None:
    like = first if x is None else x
    if first.dim() < 1:
        raise InputError(name, "has no batch dimension", "Give (B, *sample_shape)")
    _alike(name, first, like.shape, like.device, FLOATS)
    for other, value in others.items():
        if value is not None:
            _alike(other, value, like.shape, like.device, FLOATS)


def _alike(
    name: str,
    value: object,
    shape: tuple[int, ...] | torch.Size,
    device: torch.device,
    dtypes: tuple[torch.dtype, ...],
) -> None:
    got = f"is a {type(value).__name__}"
    if isinstance(value, Tensor):
        if value.shape == tuple(shape) and value.device == device and value.dtype in dtypes:
            return
        got = f"is {value.dtype} of shape {tuple(value.shape)} on {value.device}"
    raise InputError(
        name,
        got,
        f"Give {_names(dtypes)} of shape {tuple(shape)} on {device}",
    )


def _table(table: Tensor, step: Tensor, x: Tensor) -> None:
    fits = table.dtype == x.dtype and table.device == x.device and table.dim() == 2
    if not fits or table.shape[1] <= FIRST_B or not table.shape[0] or table.stride(1) != 1:
        raise InputError(
            "table",
            f"is {table.dtype} of shape {tuple(table.shape)} on {table.device}",
            f"Give coefficient_table(...): {x.dtype} of shape (rows, {FIRST_B} + J) on {x.device}",
        )
    if step.dtype != torch.int64 or step.numel() != 1 or step.device != x.device:
        raise InputError(
            "step",
            f"is {step.dtype} with {step.numel()} elements on {step.device}",
            f"Give one int64 on {x.device}: torch.tensor(row, device=...)",
        )
    looks = step.device.type == "cpu" and not traced(step)
    if looks and not 0 <= int(step) < table.shape[0]:
        raise InputError("step", f"is {int(step)}", f"Give a row of the table, below {len(table)}")


def _channels(like: Tensor, channels: int) -> None:
    if channels < -1 or (channels >= 0 and like.dim() < 2):
        raise InputError(
            "channels",
            f"is {channels} for shape {tuple(like.shape)}",
            "Give the number of guided channels of dim 1, or -1 for all",
        )


def _names(dtypes: tuple[torch.dtype, ...]) -> str:
    return " or ".join(str(d).removeprefix("torch.") for d in dtypes)
