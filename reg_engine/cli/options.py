"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..denoisers import Denoiser
from ..errors import InputError
from ..plan import Plan

__all__ = [
    "apply",
    "emit",
    "fingerprint",
    "guided_options",
    "json_option",
    "numbers",
    "plan_of",
    "run_options",
    "whole_numbers",
]

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")

run_options = [
    click.option(
        "--model", default="mnist", show_default=True, help="A packaged model or a .safetensors."
    ),
    click.option("--solver", default="heun", show_default=True, help="A solver's name."),
    click.option("--steps", default=18, show_default=True, type=int, help="Solver steps."),
    click.option("--batch-size", default=50, show_default=True, type=int, help="Samples a batch."),
    click.option("--device", default=None, help="cpu or cuda; default: where the model is."),
    click.option("--progress/--no-progress", default=True, help="Draw a progress bar."),
]

# Of a command that samples once.
guided_options = [
    click.option("--labels", default="0-9", show_default=True, help="Class labels: 0-9 or 3,5,7."),
    click.option(
        "--per-label", default=1, show_default=True, type=int, help="Samples of each label."
    ),
    click.option(
        "--scale", default=4.0, show_default=True, type=float, help="Guidance scale, 1 = none."
    ),
    click.option(
        "--rectify", default="auto", show_default=True, help="An estimator, auto or none."
    ),
    click.option(
        "--plan", default="full", show_default=True, help="full, LO:HI noise levels, or a file."
    ),
]


def apply(options: list[Callable[..., Any]]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """One decorator for a list of click options."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def whole_numbers(name: str, text: str) -> list[int]:
    """'0-9' or '3,5,7-9' as a list of integers."""
    values: list[int] = []
    try:
        for part in text.split(","):
            low, dash, high = part.strip().partition("-")
            values += range(int(low), int(high) + 1) if dash else [int(low)]
    except ValueError as error:
        raise InputError(
            f"--{name}", f"{text!r} is no list of numbers", "Write 0-9 or 3,5,7"
        ) from error
    if not values:
        raise InputError(f"--{name}", f"{text!r} is empty", "Write 0-9 or 3,5,7")
    return values


def fingerprint(denoiser: Denoiser) -> str:
    """A digest of the network's weights: samples of other weights are other samples."""
    digest = hashlib.sha256()
    for module in denoiser.modules:
        for name, value in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def numbers(name: str, text: str) -> list[float]:
    """'1,1.5,2' as a list of floats."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--{name}", f"{text!r} is no list of numbers", "Write 1,1.5,2") from error


def plan_of(text: str) -> Plan:
    """'full', 'LO:HI' (noise levels) or a calibrated plan's file."""
    if text == "full":
        return Plan.full()
    low, colon, high = text.partition(":")
    if colon and not Path(text).exists():
        try:
            return Plan.interval(float(low), float(high))
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                "--plan",
                f"{text!r} is neither 'full', LO:HI nor a file",
                "Write 0.1:2, for example",
            ) from error
    return Plan.load(text)


def emit(data: dict[str, Any], as_json: bool, text: str) -> None:
    """Print one result, as JSON or as text for people."""
    click.echo(json.dumps(data, indent=1) if as_json else text)
