"""What a user's own parts of guidance are asked, and what may come back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .conditioning import Cond
from .denoisers import Denoiser

__all__ = ["as_state", "conditioned"]


def as_state(argument: str, value: object, like: Tensor) -> Tensor:
    """What a user's function returned, if it is a tensor like `like`, else InputError."""
    if isinstance(value, Tensor) and value.shape == like.shape:
        return value
    got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
    raise InputError(
        argument, f"returned {got} for states {tuple(like.shape)}", "Return tensors of that shape"
    )


def conditioned(
    reference: Any,
    denoiser: Denoiser,
    cond: Cond,
    seeds: Sequence[int],
    device: torch.device,
) -> Cond:
    """A Reference's own conditioning, one row a seed: `drawn` where it has that, with the seeds, or
    `conditioning`, which is told their number."""
    drawn = getattr(reference, "drawn", None)
    if drawn is not None:
        found: Cond = drawn(denoiser, cond, seeds, device)
    else:
        found = reference.conditioning(denoiser, cond, len(seeds), device)
    return found
