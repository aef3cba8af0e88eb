"""The points of a recipe: method x estimator x scale, what each asks of the networks, and how long
that takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, choice
from ..guidance.weights import as_scale, weights_of
from ..rectifiers import RECTIFIERS
from ..schedules import EDM, Schedule, VPLinear
from ..solvers import Table, table
from ..values import as_int
from .recipes import Files, Recipe

__all__ = ["RecipePoint", "evaluations", "points_of"]

# Evaluations of a rectified row beside CFG's two; a backward pass counts as one. What probes
# seldom takes less than this.
EXTRA = {"none": 0.0, "blend": 2.0, "lazy_blend": 2.0, "characteristic": 3.0}


@dataclass(frozen=True)
class RecipePoint:
    """A method at a scale.

    Args:
        recipe: of the paper's row.
        method: one of its methods.
        rectify: an estimator's name, or "none": CFG.
        scale: guidance scale; at 1 all methods of the same network are one.
        steps: of the solver.
    """

    recipe: Recipe
    method: str
    rectify: str
    scale: float
    steps: int

    @property
    def files(self) -> Files | None:
        """Its networks; None: those of a pipeline."""
        return self.recipe.files(self.method)

    @property
    def name(self) -> str:
        """A file name of its own; of points that are the same, the same."""
        if self.scale == 1:
            return "none" if self.files is None else f"none-{self.files.net}"
        return f"{self.method}-{self.rectify}-{self.scale!r}"

    @property
    def row(self) -> dict[str, Any]:
        """How it is named in the numbers."""
        return {"method": self.method, "rectify": self.rectify, "scale": self.scale}


def points_of(
    recipe: Recipe,
    methods: Sequence[str] | None = None,
    estimators: Sequence[str] = ("none", "paper"),
    scales: Sequence[float] | None = None,
    steps: int | None = None,
) -> list[RecipePoint]:
    """The points of a recipe: network by network, so that each file is read once, and from the
    least scale up.

    Args:
        methods: of the recipe's; None = all. estimators: of RECTIFIERS, or "none".
        scales, steps: None = the recipe's.

    Raises:
        InputError: an unknown method or estimator, a bad scale, no point at all.
    """
    for name in estimators:
        choice("rectify", name, ("none", *RECTIFIERS))
    chosen = recipe.methods if methods is None else methods
    for name in chosen:
        choice("methods", name, recipe.methods)
    grid = sorted(
        {as_scale("scales", one) for one in (recipe.scales if scales is None else scales)}
    )
    count = recipe.steps if steps is None else as_int("steps", steps)
    found = [
        RecipePoint(recipe, method, rectify, scale, count)
        for scale in grid
        for method in chosen
        for rectify in estimators
    ]
    if not found:
        raise InputError("methods", "leave no point", "Name a method, an estimator and a scale")
    groups = list(dict.fromkeys(point.files for point in found))
    return sorted(found, key=lambda point: groups.index(point.files))


def evaluations(point: RecipePoint) -> float:
    """Network evaluations a sample, backward passes among them: at most, for what probes seldom;
    `jvp` takes one more, as its first product has no lag yet."""
    recipe, extra = point.recipe, EXTRA.get(point.rectify, 1.0)
    if recipe.solver is None:
        return point.steps * (1.0 if point.scale == 1 else 2.0 + extra)
    rows = _rows(recipe, point.steps)
    weights = weights_of(recipe.weight(point.method, point.scale), rows, math.inf)
    return sum(1.0 if w == 0 else 2.0 + extra for w in weights)


def _rows(recipe: Recipe, steps: int) -> Table:
    schedule: Schedule = EDM() if recipe.convention == "edm" else VPLinear(spacing="linspace")
    assert recipe.solver is not None
    return table(recipe.solver, schedule, steps, **recipe.solver_options)
