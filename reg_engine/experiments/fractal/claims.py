"""What the fractal experiment claims, from its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..report import Report
from .figures import NAMES
from .measures import mean_of
from .models import METHODS

__all__ = ["claims", "ratios"]


def ratios(numbers: Mapping[str, Any], over: str, under: str) -> dict[str, dict[str, float]]:
    """method -> scale -> distance of stage `over` by that of `under`, averages of the classes."""
    found: dict[str, dict[str, float]] = {}
    for method, table in numbers["methods"].items():
        found[method] = {
            scale: mean_of(stages[over], "distance") / mean_of(stages[under], "distance")
            for scale, stages in table.items()
            if over in stages and under in stages
        }
    return found


def claims(report: Report) -> None:
    """What the issue asks for, and what REG does instead."""
    numbers = report.numbers
    large = [f"{scale:g}" for scale in numbers["setting"]["large"]]
    gains = {stage: ratios(numbers, "before", stage) for stage in ("dedicated", "one")}
    for method in METHODS:
        found = {stage: [gains[stage][method][scale] for scale in large] for stage in gains}
        report.claim(
            f"halved_{method}",
            f"{NAMES[method]}: at scales {', '.join(large)} postprocessing makes the mean distance "
            "to the nearest real point at least 2 times smaller",
            min(min(values) for values in found.values()) >= 2,
            f"dedicated {_times(found['dedicated'])}, one-for-all {_times(found['one'])}",
        )
    for method in METHODS:
        shares = numbers["one_by_dedicated"][method]
        report.claim(
            f"one_for_all_{method}",
            f"{NAMES[method]}: one-for-all stays within 10 % of dedicated flows in that distance",
            max(each["ratio"] for each in shares.values()) <= 1.1,
            ", ".join(
                f"scale {scale}: {each['ratio'] - 1:+.0%} "
                f"({each['low'] - 1:+.0%} to {each['high'] - 1:+.0%})"
                for scale, each in shares.items()
            ),
        )
    for method in METHODS:
        table = numbers["methods"][method]
        factors = {
            scale: mean_of(table[scale]["before"], "energy_target")
            / mean_of(table[scale]["reg"], "energy_target")
            for scale in large
        }
        report.claim(
            f"target_{method}",
            f"{NAMES[method]}: at scales {', '.join(large)} REG is nearer to the distribution that "
            "guidance aims at than plain guidance (energy distance)",
            min(factors.values()) > 1,
            f"{_times(list(factors.values()))} smaller",
        )


def _times(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values) + " times"
