"""Panels under their titles: every pixel is there, and ink in the title."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from reg_engine.pictures import save_panels


def test_panels_show_every_pixel_under_a_title(tmp_path: Path) -> None:
    left = torch.full((40, 60, 1), 200, dtype=torch.uint8)
    right = torch.full((40, 60, 3), 90, dtype=torch.uint8)
    save_panels(tmp_path / "p.png", {"CFG, scale 4, nfe 70": left, "REG": right})
    page = np.array(Image.open(tmp_path / "p.png"))
    assert (page == 200).all(2).sum() >= 80 * 120 and (page == 90).all(2).sum() >= 80 * 120
    title = page[: page.shape[0] - 24 - 80]
    assert (title < 60).all(2).sum() > 100, "no ink in the title"
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]
