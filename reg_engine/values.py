"""Numbers as a caller may write them: plain, of NumPy, or 0-dim tensors; never a bool for a number.

One reading for every argument that takes a number, so that all of them accept and refuse the same;
and one for the name of a device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import torch

from .errors import InputError

__all__ = [
    "as_bool",
    "as_budget",
    "as_float",
    "as_int",
    "as_levels",
    "as_range",
    "as_tuple",
    "check_sizes",
    "shown",
    "store",
    "usable",
]


def as_int(argument: str, value: Any, least: int = 1, remedy: str = "") -> int:
    """`value` as an int in [least, 2^63).

    Raises:
        InputError: it is no integer (a bool and 3.0 are none), or out of range.
    """
    plain = _number(value)
    if not isinstance(plain, Integral) or not least <= int(plain) < 2**63:
        raise InputError(argument, f"is {shown(value)}", remedy or f"Give an integer >= {least}")
    return int(plain)


def as_float(
    argument: str,
    value: Any,
    remedy: str = "Give a finite number",
    ok: Callable[[float], bool] = math.isfinite,
) -> float:
    """`value` as a float for which `ok` holds.

    Raises:
        InputError: it is no real number (a bool is none), is NaN, or `ok` does not hold.
    """
    plain = _number(value)
    try:
        number = float(plain) if isinstance(plain, Real) else math.nan
    except OverflowError:
        number = math.nan  # an int beyond every float
    if math.isnan(number) or not ok(number):
        raise InputError(argument, f"is {shown(value)}", remedy)
    return number


def as_bool(argument: str, value: Any, remedy: str = "Give True or False") -> bool:
    """`value` as a bool, else InputError: 0, 1 and texts are none."""
    plain = _scalar(value)
    if not isinstance(plain, bool):
        raise InputError(argument, f"is {shown(value)}", remedy)
    return plain


def as_budget(memory_budget: Any) -> float | None:
    """Bytes > 0, or None, else InputError."""
    if memory_budget is None:
        return None
    remedy = "Give bytes > 0, or None"
    return as_float("memory_budget", memory_budget, remedy, lambda v: 0 < v < math.inf)


def as_levels(lo: Any, hi: Any) -> tuple[float, float]:
    """Two noise levels sigma/alpha, 0 <= lo < hi <= inf, else InputError."""
    remedy = "Give noise levels sigma/alpha, 0 <= lo < hi"
    lo = as_float("lo", lo, remedy, lambda v: 0 <= v < math.inf)
    return lo, as_float("hi", hi, remedy, lambda v: v > lo)


def check_sizes(**sizes: Any) -> None:
    """InputError for the first that is no integer >= 1 and no list or tuple of such."""
    for name, value in sizes.items():
        for size in value if isinstance(value, list | tuple) else [value]:
            as_int(name, size)


def as_tuple(argument: str, value: Any, remedy: str) -> tuple[Any, ...]:
    """The members of an iterable, a text being one member, else InputError."""
    try:
        return (value,) if isinstance(value, (str, bytes)) else tuple(value)
    except TypeError as error:
        raise InputError(argument, f"is {shown(value)}", remedy) from error


def usable(device: Any) -> torch.device:
    """The device, with its number ('cuda' is 'cuda:0'), if it can compute here.

    Raises:
        InputError: it cannot, or nobody knows its name.
    """
    remedy = "Give 'cpu', or 'cuda' where torch.cuda.is_available()"
    if isinstance(device, bool):  # torch takes it for the number of a device
        raise InputError("device", f"is {device}", remedy)
    try:
        place = torch.zeros(1, device=torch.device(device)).device
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        problem = f"{shown(device)} cannot be used ({str(error).splitlines()[0][:200]})"
        raise InputError("device", problem, remedy) from error
    if place.type == "meta":
        raise InputError("device", "'meta' holds shapes and no values", remedy)
    return place


def as_range(argument: str, value: Any) -> tuple[float, float]:
    """Two finite numbers, the first below the second, else InputError."""
    remedy = "Give two numbers, such as (0, 1)"
    ends = as_tuple(argument, value, remedy)
    if len(ends) != 2:
        raise InputError(argument, f"is {shown(value)}", remedy)
    low = as_float(argument, ends[0], remedy)
    return low, as_float(argument, ends[1], remedy, lambda v: low < v < math.inf)


def store(target: object, **fields: object) -> None:
    """Set fields of a frozen dataclass while it is built."""
    for name, value in fields.items():
        object.__setattr__(target, name, value)


def shown(value: object) -> str:
    """`value` for a message: short, on one line."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a foreign repr, or an int of too many digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _scalar(value: Any) -> Any:
    """The Python value in a NumPy scalar or a 0-dim array or tensor; else `value` itself."""
    if getattr(value, "ndim", None) != 0 or not hasattr(value, "item"):
        return value
    try:
        return value.item()
    except RuntimeError:  # a tensor without a value (meta)
        return None


def _number(value: Any) -> Any:
    plain = _scalar(value)
    return None if isinstance(plain, bool) else plain
