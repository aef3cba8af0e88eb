"""What ops do to stacked duals, in tables by kind of op."""

from __future__ import annotations

import torch

from ..tensor import RULES, TRACED
from . import affine, attention, constants, elementwise, norms, products, shapes, sums

__all__ = ["affine", "attention", "constants", "elementwise", "norms", "products", "shapes", "sums"]

constants.in_place()
# As torch.compile calls these operators: by names that no home has, or by functions of its own.
TRACED |= {"pow": torch.pow, "__rsub__": torch.rsub, "__floordiv__": torch.floor_divide}
TRACED["__rdiv__"] = "__rdiv__"
RULES["__rdiv__"] = products.rdiv
