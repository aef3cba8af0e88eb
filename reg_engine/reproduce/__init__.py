"""REG's experiments on published models as recipes (Gao et al. 2025, Tables 2 and 3)."""

from __future__ import annotations

from .recipes import RECIPES, Recipe, recipe
from .run import Reproduction

__all__ = ["RECIPES", "Recipe", "Reproduction", "recipe"]
