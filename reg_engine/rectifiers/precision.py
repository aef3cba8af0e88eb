"""How finely a network computes, which is not how finely it is stored.

Weights in float32 give results of 16 bits under autocast, in TF32, or where a function around the
network casts. A difference drowns in that rounding if its step is chosen by the weights' dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..networks.denoisers import Denoiser
from ..networks.point import Point
from ..ops.formulas import widest

__all__ = ["autocast_dtype", "measured_precision", "precision_of", "rms", "wide"]

# (relative step, noise, dtype): a network whose output's relative rounding noise is above computes
# no finer than the dtype. It shows in the second difference, where smooth networks leave step^2.
NOISE = ((1e-3, 1.5e-4, torch.bfloat16), (1e-6, 5e-9, torch.float32))


def precision_of(denoiser: Denoiser, x: Tensor) -> torch.dtype:
    """The coarsest dtype on the way: of the state, the weights, an active autocast, TF32 where it
    is switched on, and what the network last returned."""
    dtypes = [x.dtype, denoiser.dtype, autocast_dtype(x.device), denoiser.returned]
    if x.is_cuda and (torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32):
        dtypes.append(torch.float16)  # as many digits as TF32
    return max((dtype for dtype in dtypes if dtype is not None), key=_epsilon)


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """What an active autocast computes in on `device`; None where there is none."""
    if not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


def measured_precision(point: Point) -> torch.dtype:
    """`precision_of` the conditional network at the point, or what its rounding noise shows to be
    coarser: 3 evaluations (5 where it seems to be float64), none where 16 bits are known of."""
    dtype = precision_of(point.denoiser, point.x)
    if _epsilon(dtype) > _epsilon(torch.float32):
        return dtype
    center = wide(point.cond_at(point.x))
    dtype = precision_of(point.denoiser, point.x)  # it has returned something now
    for step, noise, coarser in NOISE:
        if _epsilon(coarser) > _epsilon(dtype):
            sides = (wide(point.cond_at(point.x * (1 + sign * step))) for sign in (1, -1))
            bend = sum(sides) - 2 * center
            if float(rms(bend)) > noise * 6**0.5 * float(rms(center)):
                return coarser
    return dtype


def rms(value: Tensor) -> Tensor:
    """Root mean square of all elements."""
    return wide(value).square().mean().sqrt()


def wide(value: Tensor) -> Tensor:
    """In float64; in float32 where the device has none."""
    return value.to(widest(value.device))


def _epsilon(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps
