"""Images, grids, panels and plots: pixel for pixel where that can be said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reg_engine import InputError
from reg_engine.images import grid, to_uint8
from reg_engine.pictures import save_panels
from reg_engine.plots import save_evaluation


def test_samples_to_bytes() -> None:
    values = torch.tensor([-1.0, 0.0, 1.0, -3.0, 7.0, 0.5])
    got = to_uint8(values.reshape(1, 1, 2, 3))
    assert got.flatten().tolist() == [0, 128, 255, 0, 255, 191]
    with pytest.raises(InputError, match="images"):
        to_uint8(torch.zeros(2, 5))


def test_grid_places_row_by_row() -> None:
    images = torch.arange(1, 6, dtype=torch.uint8).reshape(5, 1, 1, 1).expand(5, 2, 3, 1)
    sheet = grid(images, columns=2, gap=1, shade=9)[..., 0]
    assert sheet.shape == (3 * 3 + 1, 2 * 4 + 1)
    assert sheet[1, 1] == 1 and sheet[1, 5] == 2 and sheet[4, 1] == 3 and sheet[7, 1] == 5
    assert (sheet[0] == 9).all() and (sheet[7:9, 5:8] == 9).all()


def test_panels_show_every_pixel_under_a_title(tmp_path: Path) -> None:
    left = torch.full((40, 60, 1), 200, dtype=torch.uint8)
    right = torch.full((40, 60, 3), 90, dtype=torch.uint8)
    save_panels(tmp_path / "p.png", {"CFG, scale 4, nfe 70": left, "REG": right})
    page = np.array(Image.open(tmp_path / "p.png"))
    assert (page == 200).all(2).sum() >= 80 * 120 and (page == 90).all(2).sum() >= 80 * 120
    title = page[: page.shape[0] - 24 - 80]
    assert (title < 60).all(2).sum() > 100, "no ink in the title"
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]


def test_evaluation_plot_draws_every_method(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need the eval extra")
    points = [
        {"method": m, "scale": s, "fid": f, "label_agreement": 0.9, "low": 0.88, "high": 0.92}
        for m, f in (("CFG", 3.0), ("REG (vjp)", 2.0))
        for s in (1.0, 2.0)
    ]
    save_evaluation(points, tmp_path / "e.png")
    page = np.array(Image.open(tmp_path / "e.png").convert("RGB")).reshape(-1, 3)
    for colour in ((0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2)):
        assert (np.abs(page.astype(int) - colour).max(1) < 8).sum() > 200
