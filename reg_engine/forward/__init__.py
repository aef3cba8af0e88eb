"""Forward mode: predictions and Jacobian-vector products from one pass of stacked rows."""

from __future__ import annotations

from . import rules
from .door import Moving, Product, jvp, passed, rows_of, scale_for
from .tensor import StackedDual, is_dual, stack

__all__ = [
    "Moving",
    "Product",
    "StackedDual",
    "is_dual",
    "jvp",
    "passed",
    "rows_of",
    "rules",
    "scale_for",
    "stack",
]
