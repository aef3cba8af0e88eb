"""What reg-2d has measured, as its page and its JSON need it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .models import STEPS, Sizes
from .win import Scores

__all__ = [
    "ENERGY_WEIGHTS",
    "FIELD_STEP",
    "FIELD_WEIGHT",
    "RESOLVED",
    "VIEWS",
    "WIN_WEIGHT",
    "Results",
    "Sets",
    "felt_wins",
    "mean_win",
    "plain",
]

WIN_WEIGHT = 1.0  # the paper's in 1-D; that of its 2-D figure is not known
FIELD_WEIGHT = 3.0
FIELD_STEP = 9  # counted from 1, as in the paper
ENERGY_WEIGHTS = (1.0, 3.0)
# A ratio of two clouds' scores above this is no difference: where both are near the floor
# (checkerboard, exact model, w = 1, `paper` against CFG) seeds 0 to 4 gave 0.92 to 1.04.
RESOLVED = 0.9

VIEWS = {
    "chains": "network, golden by its chains",
    "oracle": "network, exact golden",
    "exact": "exact model, exact golden",
    "square": "network, exact golden, square lattice",
}

Sets = dict[str, dict[str, dict[str, Scores]]]  # set -> method -> estimator


@dataclass
class Results:
    """All that was measured.

    Args:
        views: of the win ratio, see VIEWS.
        simulated: set -> kind of reference -> size and error of simulated golden guidance.
        energies: "trained" or "exact" -> w -> set -> cloud -> energy distance.
        figures: Fig. 2 of each set.
    """

    sizes: Sizes
    views: dict[str, Sets] = field(default_factory=dict)
    simulated: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    energies: dict[str, dict[float, dict[str, dict[str, float]]]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)


def mean_win(sets: Sets, method: str, estimator: str) -> float:
    """Win ratio in %, mean over steps and then over sets."""
    return 100 * sum(found[method][estimator].mean for found in sets.values()) / len(sets)


def felt_wins(sets: Sets, method: str, estimator: str, step: int) -> tuple[float, int]:
    """Win ratio in % at `step` (from 1) over the points of all sets where the error without REG is
    felt, and their number; NaN and 0 where it nowhere is."""
    index = STEPS - step
    found = [methods[method][estimator] for methods in sets.values()]
    places = [(s, s.steps.index(index)) for s in found if index in s.steps]
    count = sum(s.counts[at] for s, at in places)
    won = sum(s.felt[at] * s.counts[at] for s, at in places if s.counts[at])
    return (100 * won / count if count else float("nan")), count


def plain(sets: Sets) -> dict[str, Any]:
    """For JSON: set -> method -> steps, errors without REG, and each estimator's scores."""
    return {
        name: {method: _method(scores) for method, scores in methods.items()}
        for name, methods in sets.items()
    }


def _method(estimators: Mapping[str, Scores]) -> dict[str, Any]:
    first = next(iter(estimators.values()))
    return {
        "steps": [STEPS - index for index in first.steps],
        "error_plain": first.baseline,
        **{
            name: {
                "mean": scores.mean,
                "error_ratio": scores.error_ratio,
                "wins": scores.wins,
                "felt": scores.felt,
                "felt_points": scores.counts,
            }
            for name, scores in estimators.items()
        },
    }
