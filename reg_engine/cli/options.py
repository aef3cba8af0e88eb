"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..calibration.damping import Damping
from ..errors import InputError
from ..guidance.damped import Damped
from ..networks.denoisers import Denoiser
from ..plan import Plan
from ..solvers import Gibbs

__all__ = [
    "adapter_file",
    "apply",
    "arguments_of",
    "damping_file",
    "emit",
    "fit",
    "guided_options",
    "json_option",
    "labels_of",
    "numbers",
    "plan_of",
    "refine_of",
    "run_options",
    "scale_of",
    "whole_numbers",
]

MOST = 10_000_000  # numbers in a list, and samples of a command


def adapter_file(text: str) -> str:
    """The file of a packaged adapter, by its model's name; or the one that was named."""
    from ..models import PACKAGED, packaged_adapter  # here, so that --help starts without networks

    return str(packaged_adapter(text)) if text in PACKAGED else text


def damping_file(text: str) -> str:
    """The file of a packaged damping, by its model's name; or the one that was named."""
    from ..models import PACKAGED, packaged_damping

    return str(packaged_damping(text)) if text in PACKAGED else text


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")

run_options = [
    click.option(
        "--model",
        default="mnist",
        show_default=True,
        help="A packaged model (mnist, fashion) or a .safetensors.",
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


def arguments_of(context: click.Context, *without: str) -> list[str]:
    """The words of this very invocation, from the command on, without some of its options."""
    arguments = [str(context.info_name)]
    for parameter in context.command.params:
        name = str(parameter.name)
        if context.get_parameter_source(name) != ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        if name in without:
            continue
        if isinstance(value, bool):
            arguments.append((parameter.opts if value else parameter.secondary_opts)[0])
        else:
            several = value if isinstance(value, tuple) else (value,)
            arguments += [word for one in several for word in (parameter.opts[0], str(one))]
    return arguments


def whole_numbers(name: str, text: str) -> list[int]:
    """'0-9' or '3,5,7-9' as a list of at most MOST integers."""
    remedy, parts = "Write 0-9 or 3,5,7", []
    try:
        for part in text.split(","):
            low, dash, high = part.strip().partition("-")
            parts.append(range(int(low), int(high if dash else low) + 1))
    except ValueError as error:
        raise InputError(f"--{name}", f"{text!r} is no list of numbers", remedy) from error
    count = sum(max(0, part.stop - part.start) for part in parts)
    if count == 0:
        raise InputError(f"--{name}", f"{text!r} is empty", remedy)
    if count > MOST:
        raise InputError(f"--{name}", f"{text!r} is {count} numbers", f"Give at most {MOST}")
    return [value for part in parts for value in part]


def labels_of(text: str, per_label: int, denoiser: Denoiser) -> list[int]:
    """The labels of a command's samples, `per_label` of each.

    Raises:
        InputError: a label that is no class of the model's (the null label is none), or more
            samples than MOST or than fit into memory.
    """
    if per_label < 1:
        raise InputError("--per-label", f"is {per_label}", "Give a number >= 1")
    labels, classes = whole_numbers("labels", text), denoiser.num_classes
    bad = sorted({label for label in labels if classes is not None and not 0 <= label < classes})
    if bad:
        remedy = f"Write labels from 0 to {classes - 1}"  # type: ignore[operator]
        raise InputError("--labels", f"{bad[:5]} are out of range", remedy)
    fit("--per-label", len(labels) * per_label, denoiser)
    return [label for label in labels for _ in range(per_label)]


def fit(argument: str, samples: int, denoiser: Denoiser) -> None:
    """Refuse more samples than MOST, or than this machine's memory holds twice."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    most = min(MOST, memory // (8 * math.prod(denoiser.sample_shape)))
    if samples > most:
        raise InputError(argument, f"makes {samples} samples", f"Ask for at most {most} at once")


def numbers(name: str, text: str) -> list[float]:
    """'1,1.5,2' as a list of floats."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--{name}", f"{text!r} is no list of numbers", "Write 1,1.5,2") from error


def scale_of(
    scale: float, rectify: str, damping: str | None, skip: float, adapter: str | None
) -> float | Damped:
    """The scale, or at it the damping of a file.

    Raises:
        InputError: an estimator or a damping beside an adapter; a --skip-below without a damping.
    """
    beside = {"--damping": damping is not None, "--rectify": rectify not in ("auto", "none")}
    for option, given in beside.items():
        if given and adapter is not None:
            raise InputError(option, "does not go with --adapter", "Leave one of them out")
    if damping is not None:
        return Damping.load(damping_file(damping))(scale, skip_below=skip)
    if skip:
        raise InputError("--skip-below", "goes with --damping", "Give a --damping, or leave it out")
    return scale


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


def refine_of(text: str | None) -> Gibbs | None:
    """'LEVEL' or 'LEVEL:ROUNDS'; None = no rounds."""
    if text is None:
        return None
    level, colon, rounds = text.partition(":")
    try:
        return Gibbs(float(level), int(rounds) if colon else 1)
    except ValueError as error:  # InputError is one
        problem = f"{text!r} is no noise level > 0 with a number of rounds"
        raise InputError("--refine", problem, "Write 0.4, or 0.4:2") from error


def emit(data: dict[str, Any], as_json: bool, text: str) -> None:
    """Print one result, as JSON or as text for people."""
    click.echo(json.dumps(data, indent=1) if as_json else text)
