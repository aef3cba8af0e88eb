"""The guidance methods of the explorer, by the names that its page shows."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from ..calibration.damping import Damping
from ..errors import choice
from ..guidance import Guidance, Interval
from ..pictures.plane import METHOD_COLOURS
from ..pictures.plots import OKABE_ITO
from ..values import as_float, as_int

__all__ = ["ESTIMATORS", "METHODS", "as_scale", "as_within", "colour_of", "guidance_of"]

ESTIMATORS = {
    "auto": "auto: asks only where it must",
    "vjp": "vjp: one backward pass a step",
    "paper": "paper: K transposed, as published",
    "fd": "fd: one finite difference a step",
    "fd_batched": "fd_batched: the same in one batch",
    "lazy": "lazy: carries K delta along",
    "blend": "blend: looks beyond K delta",
}
INTERVAL = (0.2, 2.0)  # noise levels
METHODS = (
    "no guidance",
    "CFG",
    "interval",
    "damping",
    *(f"REG ({name})" for name in ESTIMATORS),
)


def guidance_of(method: str, scale: float, damping: Callable[[], Damping]) -> Guidance:
    """The guidance of a name in METHODS at a scale.

    Args:
        damping: measures the model's damping; called for "damping" alone.

    Raises:
        InputError: an unknown name.
    """
    choice("method", method, METHODS)
    if method == "damping":
        return Guidance(damping()(scale), rectify=None)
    if method == "interval":
        return Guidance(Interval(scale, *INTERVAL), rectify=None)
    if method.startswith("REG"):
        return Guidance(scale, rectify=method[len("REG (") : -1])
    return Guidance(1.0 if method == "no guidance" else scale, rectify=None)


@lru_cache
def colour_of(method: str) -> str:
    """REG's estimators share one colour; others have their own."""
    own = {"interval": OKABE_ITO["green"], "damping": OKABE_ITO["purple"]}
    return (METHOD_COLOURS | own).get(method, METHOD_COLOURS["REG"])


def as_scale(value: object, most: float = 10.0) -> float:
    """A guidance scale in [1, most], else InputError."""
    remedy = f"Give a number from 1 to {most:g}; 1 is no guidance"
    return as_float("scale", value, remedy, lambda v: 1 <= v <= most)


def as_within(argument: str, value: object, least: int, most: int) -> int:
    """A whole number in [least, most], else InputError. Sliders may send it as a float."""
    remedy = f"Give a whole number from {least} to {most}"
    number = as_float(argument, value, remedy, lambda v: least <= v <= most and v == int(v))
    return as_int(argument, int(number), least, remedy)
