"""Small labels beside the points of a plot, where they cover as little as possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FONT = 7.0  # points; a digit is about 0.62 of it wide
WAYS = np.array([(1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0)])
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
    points = 72 / panel.figure.dpi  # a pixel
    ink = np.concatenate([_dense(panel.transData.transform(each)) for each in lines]) * points
    frame = panel.bbox.extents.reshape(2, 2) * points
    for x, y, text, weight in labels:
        place = panel.transData.transform((x, y)) * points
        half = np.array([0.31 * len(text) * FONT, 0.5 * FONT])
        offsets, costs = [], []
        for distance in DISTANCES:
            for way in WAYS:
                offset = way / np.hypot(*way) * distance + way * half
                middle = place + offset
                covered = (np.abs(ink - middle) < half + 1.5).all(1).sum()
                out = (middle - half < frame[0]).any() or (middle + half > frame[1]).any()
                offsets.append(offset)
                costs.append(covered + 0.3 * distance + 1000 * out)
        offset = offsets[int(np.argmin(costs))]
        look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": FONT}
        look |= {"textcoords": "offset points", "color": colour, "fontweight": weight}
        panel.annotate(text, (x, y), xytext=offset, **look)
        # To the next labels its box is ink.
        box = np.stack(np.meshgrid(*(np.linspace(-h, h, 6) for h in half)), -1).reshape(-1, 2)
        ink = np.concatenate([ink, place + offset + box])


def _dense(line: NDArray[Any]) -> NDArray[Any]:
    """A polygon line (n, 2) in pixels with a point at least every two pixels."""
    parts = [line[:1]]
    for a, b in zip(line[:-1], line[1:], strict=True):
        count = max(1, int(np.hypot(*(b - a)) / 2))
        parts.append(a + (b - a) * np.linspace(0, 1, count + 1)[1:, None])
    return np.concatenate(parts)
