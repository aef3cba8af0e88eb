"""What the pages and figures of the image experiments share."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reg_engine.data.mnist import DATA_SETS
from reg_engine.experiments.draws import Point, pairs
from reg_engine.experiments.image_runs import draw_samples, marks, wrapped


def test_points_are_called_by_method_scale_and_reg() -> None:
    assert Point("vanilla", 2.5).title == "CFG, scale 2.5"
    assert Point("cg-linear", 4.0, "vjp").title == "CG, linear + REG, w 4"
    assert pairs("interval", (2, 3), "vjp") == [
        Point("interval", 2),
        Point("interval", 2, "vjp"),
        Point("interval", 3),
        Point("interval", 3, "vjp"),
    ]


def test_wrapped_text_keeps_its_words_its_paragraphs_and_its_lists() -> None:
    words = " ".join(f"word-{n}" for n in range(60))
    found = wrapped(f"  {words}\n\n* one\n  {words}\n* two\n\nlast")
    assert max(map(len, found.splitlines())) <= 100
    first, second, last = found.split("\n\n")
    assert " ".join(first.split()) == words and last == "last"
    items = second.split("\n* ")
    assert items[0].startswith("* one word-0 ") and items[1] == "two"
    assert all(line.startswith("  ") for line in items[0].splitlines()[1:])


def test_open_marks_are_without_reg() -> None:
    assert marks("blue", "o", False)["markerfacecolor"] == "white"
    assert marks("blue", "o", True)["markerfacecolor"] == marks("blue", "o", True)["color"]


def test_labels_lie_beside_their_points_and_not_on_each_other() -> None:
    """Ten labels at nearly one place of a curve: none covers another one, its line or a mark."""
    pytest.importorskip("matplotlib")
    from reg_engine.experiments.figures import figure
    from reg_engine.experiments.mnist.labels import place_labels

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


def test_a_picture_has_a_line_a_set() -> None:
    pytest.importorskip("matplotlib")
    rows = {"one": torch.zeros(20, 1, 4, 4), "other": torch.ones(20, 3, 4, 4)}
    drawn = draw_samples(rows).axes
    assert [axes.get_ylabel() for axes in drawn] == ["one", "other"]
    assert not drawn[0].get_xticklabels()


def test_a_picture_names_its_columns() -> None:
    """Each name stands above the middle of an image of its label; labels follow each other."""
    pytest.importorskip("matplotlib")
    names = DATA_SETS["fashion"].classes
    white = {0: -1.0, 7: 1.0}  # of the sneaker alone
    images = torch.tensor([white.get(k % 10, -1.0) for k in range(20)])
    top, below = draw_samples({"one": images.expand(4, 4, 1, 20).permute(3, 2, 0, 1)} | {
        "other": torch.zeros(20, 1, 4, 4)
    }, names=names).axes  # fmt: skip
    found = {label.get_text(): [] for label in top.get_xticklabels()}
    assert list(found) == list(names) and len(top.get_xticks()) == 20
    (picture,) = top.get_images()
    middle = np.asarray(picture.get_array())[3]  # a row through the images
    for label, place in zip(top.get_xticklabels(), top.get_xticks(), strict=True):
        # a pixel k is drawn from k - 1/2 to k + 1/2
        found[label.get_text()] += [middle[int(place - 1)], middle[int(place)]]
    assert found["sneaker"] == [255] * 4
    assert all(set(shades) == {0} for name, shades in found.items() if name != "sneaker")
    assert not below.get_xticklabels()
