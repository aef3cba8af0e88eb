"""Small labels beside the points of a plot, where they cover as little as possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FONT = 7.0  # points; a digit is about 0.62 of it wide
DIRECTIONS = ((1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0))
DISTANCES = (6.0, 10.0, 15.0, 21.0)  # points from a mark to the near edge of its label


def place_labels(
    panel: Any,
    labels: Sequence[tuple[float, float, str, str]],
    lines: Sequence[NDArray[Any]],
    colour: str,
) -> None:
    """Write each label, in its order, at the free place nearest to its point.

    Args:
        panel: axes with their final limits and scales.
        labels: (x, y, text, weight of the font) of each.
        lines: (n, 2) data points of every line, mark and error bar that is not to be covered.
    """
    unit = panel.figure.dpi / 72  # pixels a point
    ink = [_dense(panel.transData.transform(line)) for line in lines if len(line)]
    covered = np.concatenate(ink) / unit if ink else np.empty((0, 2))
    left, low, right, high = panel.bbox.extents / unit
    for x, y, text, weight in labels:
        place = panel.transData.transform((x, y)) / unit
        half = np.array([0.31 * len(text) * FONT, 0.5 * FONT])
        best, offset = np.inf, np.zeros(2)
        for distance in DISTANCES:
            for direction in DIRECTIONS:
                way = np.array(direction) / np.hypot(*direction)
                middle = place + way * distance + np.array(direction) * half
                inside = (np.abs(covered - middle) < half + 1.5).all(1).sum()
                out = not (left < middle[0] - half[0] and middle[0] + half[0] < right)
                out = out or not (low < middle[1] - half[1] and middle[1] + half[1] < high)
                cost = inside + 0.3 * distance + 1000 * out
                if cost < best:
                    best, offset = cost, middle - place
        panel.annotate(
            text,
            (x, y),
            textcoords="offset points",
            xytext=offset,
            ha="center",
            va="center",
            fontsize=FONT,
            color=colour,
            fontweight=weight,
        )
        # A label is an obstacle to the next ones: its box counts as ink.
        box = np.stack(np.meshgrid(*(np.linspace(-h, h, 6) for h in half)), -1).reshape(-1, 2)
        covered = np.concatenate([covered, place + offset + box])


def _dense(line: NDArray[Any]) -> NDArray[Any]:
    """A polygon line (n, 2) in pixels with a point at least every two pixels."""
    parts = [line[:1]]
    for a, b in zip(line[:-1], line[1:], strict=True):
        count = max(1, int(np.hypot(*(b - a)) / 2))
        parts.append(a + (b - a) * np.linspace(0, 1, count + 1)[1:, None])
    return np.concatenate(parts)
