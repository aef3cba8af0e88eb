"""Labels beside points."""

from __future__ import annotations

import numpy as np
import pytest


def test_labels_lie_beside_their_points_and_not_on_each_other() -> None:
    """Ten labels at nearly one place of a curve: none covers another one, its line or a mark."""
    pytest.importorskip("matplotlib")
    from reg_engine.experiments.figures import figure
    from reg_engine.pictures.labels import place_labels

    made, axes = figure(5, 4)
    panel = axes[0, 0]
    points = np.stack([np.linspace(0.4, 0.6, 10), np.linspace(0.45, 0.55, 10) ** 2], 1)
    panel.plot(*points.T, marker="o")
    panel.set(xlim=(0, 1), ylim=(0, 0.5))
    made.draw_without_rendering()
    place_labels(panel, [(x, y, "1.5", "bold") for x, y in points], [points], "black")
    made.draw_without_rendering()
    boxes = [text.get_window_extent() for text in panel.texts]
    assert len(boxes) == 10
    on_screen = panel.transData.transform(points)
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number])
        assert not any(box.contains(*point) for point in on_screen)
        # Beside its own point: within half an inch.
        middle = np.array([box.x0 + box.x1, box.y0 + box.y1]) / 2
        assert np.hypot(*(middle - on_screen[number])) < made.dpi / 2
