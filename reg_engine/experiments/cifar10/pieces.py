"""The `cifar10` experiment in pieces: `--set piece=8` ends a run after so many minutes."""

from __future__ import annotations

import time

from ...errors import InputError
from ...training import PieceOver
from ..report import Report

__all__ = ["check", "deadline_of", "number"]


def number(report: Report, key: str, default: float) -> float:
    """A positive number of report.options.

    Raises:
        InputError: it is none.
    """
    text = report.options.get(key, str(default))
    try:
        value = float(text)
    except ValueError as error:
        problem = f"{text!r} is no number"
        raise InputError(f"--set {key}", problem, "Write 1, for example") from error
    if not 0 < value < 1e7:
        raise InputError(f"--set {key}", f"is {text}", "Give a positive number")
    return value


def deadline_of(report: Report) -> float | None:
    """When this piece ends, of time.monotonic(), its minutes counted from now; None = never."""
    if "piece" not in report.options:
        return None
    return time.monotonic() + 60 * number(report, "piece", 8.0)


def check(deadline: float | None, missing: str) -> None:
    """PieceOver, which says what is missing, once the deadline has passed."""
    if deadline is not None and time.monotonic() >= deadline:
        raise PieceOver(missing)
