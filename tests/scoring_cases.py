"""Images, a feature network and files that the tests of reg_engine.scoring share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from reg_engine.scoring import Network

WIDTH = 12
CODE = """import torch
W = torch.randn(192, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 14

def features(images):
    found = images.flatten(1).double() / 255 @ W
    return found, 3 * found[:, :5]
"""


def pixels(count: int, seed: int = 0, high: int = 256, side: int = 8) -> NDArray[np.uint8]:
    """(N, side, side, 3) uint8, of a seed."""
    return np.random.default_rng(seed).integers(0, high, (count, side, side, 3), dtype=np.uint8)


def project(images: Tensor) -> tuple[Tensor, Tensor]:
    """CODE's features: linear and in float64, so that batches do not show."""
    weights = torch.randn(
        192, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    found = images.flatten(1).double() / 255 @ (weights / 14)
    return found, 3 * found[:, :5]


def network() -> Network:
    """Linear features of 8x8 images."""
    return Network("linear", project, "linear-0")


def write_pictures(folder: Path, images: NDArray[np.uint8], kind: str = "png") -> None:
    """00000/img00000.png and so on, a subfolder for every 10, as EDM2 lays them."""
    for number, image in enumerate(images):
        place = folder / f"{number // 10:05d}"
        place.mkdir(parents=True, exist_ok=True)
        options = {"lossless": True} if kind == "webp" else {}
        Image.fromarray(image).save(place / f"img{number:05d}.{kind}", **options)
