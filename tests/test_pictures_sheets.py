"""Panels under their titles: every pixel is there, and ink in the title."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from reg_engine.pictures.sheets import _broken, save_panels

TITLE = "CFG, scale 4, 67% label agreement, nfe 70 + 35 backward, 101.5 s"


@pytest.mark.parametrize("width", [30, 62, 152, 302])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_panels_show_every_pixel_under_a_title(tmp_path: Path, width: int, count: int) -> None:
    shades = [200, 140, 90][:count]
    panels = {
        f"{TITLE}, {n}": torch.full((40, width, 3 if n else 1), shade, dtype=torch.uint8)
        for n, shade in enumerate(shades)
    }
    save_panels(tmp_path / "p.png", panels)
    page = np.array(Image.open(tmp_path / "p.png")).astype(int)
    corners = []
    top = page.shape[0] - 24 - 80  # of the panels
    for shade in shades:
        rows, columns = np.nonzero((page[top:] == shade).all(2))
        assert (np.ptp(rows), np.ptp(columns)) == (79, 2 * width - 1)
        corners.append(columns.min())
    for left, end in zip(corners, [*corners[1:], page.shape[1]], strict=True):
        ink = (page[:top, left:end] < 150).all(2)
        lines, columns = np.nonzero(ink.any(1))[0], np.nonzero(ink.any(0))[0]
        # A margin before the next panel: nothing is cut. No empty band above or below it either.
        assert columns.max() < end - left - 12
        assert lines.min() <= 24 and 3 <= top - lines.max() <= 24
        assert np.diff(lines).max() <= 24
    assert top <= 12 + 3 * 22 + 8  # three lines at most, however narrow the panel
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]


def test_a_title_is_broken_between_words_and_keeps_them_all() -> None:
    font = ImageFont.load_default(size=16)
    lines = _broken(TITLE, 260, font)
    assert " ".join(lines) == TITLE
    assert all(font.getlength(line) <= 265 for line in lines) and len(lines) <= 3
    assert _broken(TITLE, 10_000, font) == [TITLE]


def test_a_picture_carries_its_notes(tmp_path: Path) -> None:
    panel = torch.zeros(4, 4, 1, dtype=torch.uint8)
    save_panels(tmp_path / "p.png", {"a": panel}, notes={"Command": "x --y", "reg_engine": "{}"})
    with Image.open(tmp_path / "p.png") as image:
        assert image.text == {"Command": "x --y", "reg_engine": "{}"}
