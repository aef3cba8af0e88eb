"""Which estimator a call takes, and why.

`auto` is `alternate`: K delta for fewer evaluations than CFG's, of every network, in CFG's memory.
Its batches have as many rows as are due; where all must be alike, for graphs (capture=True) or
compiled blocks, `auto` is the one that this network, device and memory budget can serve best.
"""

from __future__ import annotations

import os
from dataclasses import replace

import torch

from ..errors import EstimatorError, out_of_memory
from ..networks.point import Point
from . import make
from .base import Rectifier
from .difference import Difference, FDBatched, rho_of
from .forward import JVP, product
from .lazy import Alternate
from .precision import measured_precision
from .reverse import VJP, saved_bytes_per_sample
from .verify import once, verified

__all__ = ["choose", "free_bytes", "settled"]


def settled(
    rectify: str | Rectifier,
    point: Point,
    batch_size: int,
    memory_budget: float | None = None,
    check: bool = True,
    static: bool = False,
) -> tuple[Rectifier, str]:
    """The estimator for a call, tried before its first row at a point of few samples.

    `auto` is decided (`static`: among those whose batches never change); a derivative is compared
    with differences (verify.py), and differences get the step that the network's rounding asks for
    (precision.py), both unless `check` is False.

    Returns:
        (rectifier, reason), the reason in one sentence for `out.stats`.

    Raises:
        EstimatorError: an estimator that was asked for cannot serve this network.
    """
    rectifier, reason = rectify, "asked for"
    if rectifier == "auto" and static:
        rectifier, reason = choose(point, batch_size, memory_budget, check)
    elif rectifier == "auto":
        rectifier, reason = Alternate(), "alternate: K delta, asked only where it is due"
    elif isinstance(rectifier, str):
        rectifier = make(rectifier, memory_budget)
    assert not isinstance(rectifier, str)
    if not check:
        return rectifier, reason
    verified(rectifier, point, batch_size)
    if isinstance(rectifier, Difference) and rectifier.rho is None:
        precision = once(point, ("precision",), lambda: measured_precision(point))
        rectifier = replace(rectifier, rho=rho_of(precision))
    return rectifier, reason


def choose(
    point: Point, batch_size: int, memory_budget: float | None, check: bool = True
) -> tuple[Rectifier, str]:
    """Pick `vjp` where its memory fits, else `jvp` where the ops have rules, else `fd_batched`.

    What autograd saves for one sample, times `batch_size`, is compared with `memory_budget` bytes
    (None = half of what is free on the device now). Each is tried, and verified if `check` is set.

    Returns:
        (rectifier, reason), the reason in one sentence for `out.stats`.
    """
    budget = free_bytes(point.x.device) / 2 if memory_budget is None else memory_budget
    try:
        needed = saved_bytes_per_sample(point) * batch_size
        point.counter.forward += 1
        fits = f"{needed / 2**20:.0f} MiB recorded activations, budget {budget / 2**20:.0f} MiB"
        if needed <= budget:
            _tried(VJP(), point, check)
            return VJP(), f"vjp: {fits}"
    except RuntimeError as error:
        reverse = f"no reverse mode ({_first_line(error)})"
    else:
        reverse = f"vjp does not fit ({fits})"
    try:
        _tried(JVP(), point, check)
    except RuntimeError as error:
        if not isinstance(error, EstimatorError) and not out_of_memory(error):
            raise
        return FDBatched(), f"fd_batched: {reverse}; no forward mode ({_first_line(error)})"
    return JVP(), f"jvp: {reverse}"


def _tried(rectifier: VJP | JVP, point: Point, check: bool) -> None:
    if check:
        verified(rectifier, point)
    elif isinstance(rectifier, JVP):
        product(point, torch.ones_like(point.x))
    else:
        with rectifier.recorded(point) as (cond, pullback):
            pullback(torch.ones_like(cond))


def free_bytes(device: torch.device) -> int:
    """Bytes of free memory on `device` now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
