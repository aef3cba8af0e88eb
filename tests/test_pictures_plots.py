"""Plots: every method is drawn in its own colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reg_engine.pictures.plots import save_evaluation


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
