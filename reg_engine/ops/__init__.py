"""The engine's arithmetic behind one door: plain torch, Triton kernels or C++, by device."""

from __future__ import annotations

from .checks import FLOATS
from .door import (
    BACKENDS,
    available,
    combine,
    differentiates,
    guided_step,
    lagged_product,
    probe,
    reduce,
    resolve,
)

__all__ = [
    "BACKENDS",
    "FLOATS",
    "available",
    "combine",
    "differentiates",
    "guided_step",
    "lagged_product",
    "probe",
    "reduce",
    "resolve",
]
