"""`auto`: the estimator that this network, device and memory budget can serve best, and why."""

from __future__ import annotations

import os
from dataclasses import replace

import torch

from ..conditioning import take
from ..errors import EstimatorError
from ..point import Counter, Point
from .base import Rectifier
from .difference import FDBatched
from .dual import out_of_memory
from .forward import JVP, product
from .reverse import VJP, saved_bytes_per_sample

__all__ = ["choose", "free_bytes"]


def choose(point: Point, batch_size: int, memory_budget: float | None) -> tuple[Rectifier, str]:
    """Pick `vjp` where its memory fits, else `jvp` where the ops have rules, else `fd_batched`.

    Tries on one sample (not counted as nfe): what autograd saves for it, times `batch_size`, is
    compared with `memory_budget` bytes (None = half of what is free on the device now).

    Returns:
        (rectifier, reason), the reason in one sentence for `out.stats`.
    """
    one = slice(0, 1)
    cond, beside = take((point.cond, point.beside), one)
    trial = replace(
        point, x=point.x[one], cond=cond, beside=beside, memory={}, counter=Counter(), probes=None
    )
    budget = free_bytes(point.x.device) / 2 if memory_budget is None else memory_budget
    try:
        needed = saved_bytes_per_sample(trial) * batch_size
    except (EstimatorError, NotImplementedError, RuntimeError) as error:
        reverse = f"no reverse mode ({_first_line(error)})"
    else:
        fits = f"{needed / 2**20:.0f} MiB recorded activations, budget {budget / 2**20:.0f} MiB"
        if needed <= budget:
            return VJP(), f"vjp: {fits}"
        reverse = f"vjp does not fit ({fits})"
    try:
        product(trial, torch.ones_like(trial.x))
    except RuntimeError as error:
        if not isinstance(error, EstimatorError) and not out_of_memory(error):
            raise
        return FDBatched(), f"fd_batched: {reverse}; no forward mode ({_first_line(error)})"
    return JVP(), f"jvp: {reverse}"


def free_bytes(device: torch.device) -> int:
    """Bytes of free memory on `device` now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
