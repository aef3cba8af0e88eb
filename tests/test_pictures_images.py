"""Samples to bytes, and grids of them, pixel for pixel."""

from __future__ import annotations

import pytest
import torch

from reg_engine import InputError
from reg_engine.pictures.images import grid, to_uint8


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
