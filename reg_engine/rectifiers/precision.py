"""How finely a network computes, which is not how finely it is stored.

Weights in float32 give results of 16 bits under autocast, in TF32, or where a function around the
network casts. A difference drowns in that rounding if its step is chosen by the weights' dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..point import Point

__all__ = ["autocast_dtype", "measured_precision", "precision_of", "rms"]

# Relative rounding noise of a network's output above which it computes no finer than the dtype.
# The second difference over a relative step shows it: smooth networks leave about step^2 there.
NOISE = ((1e-3, 8e-4, torch.bfloat16), (1e-3, 1.5e-4, torch.float16), (1e-6, 5e-9, torch.float32))


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
    center = point.cond_at(point.x).double()
    dtype = precision_of(point.denoiser, point.x)
    differences: dict[float, float] = {}
    for step, noise, coarser in NOISE:
        if _epsilon(coarser) <= _epsilon(dtype):
            continue
        if step not in differences:
            sides = (point.cond_at(point.x * (1 + sign * step)).double() for sign in (1, -1))
            bend = sum(sides) - 2 * center
            differences[step] = float(rms(bend) / (6**0.5 * rms(center)).clamp_min(1e-300))
        if differences[step] > noise:
            return coarser
    return dtype


def rms(value: Tensor) -> Tensor:
    """Root mean square of all elements, in float64."""
    return value.double().square().mean().sqrt()


def _epsilon(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps
