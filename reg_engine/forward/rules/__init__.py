"""What ops do to stacked duals, in tables by kind of op."""

from __future__ import annotations

from . import affine, attention, constants, elementwise, norms, products, shapes, sums

__all__ = ["affine", "attention", "constants", "elementwise", "norms", "products", "shapes", "sums"]

constants.in_place()
