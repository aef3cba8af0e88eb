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
