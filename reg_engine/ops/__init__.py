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
from .duals import activation_dual, attention_dual, norm_dual

__all__ = [
    "BACKENDS",
    "FLOATS",
    "activation_dual",
    "attention_dual",
    "available",
    "combine",
    "differentiates",
    "guided_step",
    "lagged_product",
    "norm_dual",
    "probe",
    "reduce",
    "resolve",
]
