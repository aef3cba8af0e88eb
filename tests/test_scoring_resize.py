"""Filters against Pillow, torch and TensorFlow's rule written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scoring_cases import pixels

from reg_engine import InputError
from reg_engine.scoring.resize import FILTERS, Resize, resize_of

IMAGES = torch.from_numpy(pixels(3, side=20)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [7, 33])
def test_pillow_filters_are_pillows(name: str, size: int) -> None:
    found = Resize(size, f"pil-{name}")(IMAGES)
    kind = Image.Resampling[name.upper()]
    for image, given in zip(found, IMAGES, strict=True):
        picture = Image.fromarray(given.permute(1, 2, 0).numpy().copy())
        expected = np.asarray(picture.resize((size, size), kind))
        assert image.dtype == torch.uint8 and np.array_equal(image.permute(1, 2, 0), expected)
    grey = Resize(size, f"pil-{name}")(IMAGES[:, :1])
    assert grey.shape == (3, 1, size, size) and torch.equal(grey[:, 0], found[:, 0])


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_torch_filters_are_antialiased_and_not_rounded(name: str) -> None:
    found = Resize(7, f"torch-{name}")(IMAGES)
    pillow = Resize(7, f"pil-{name}")(IMAGES).float()
    assert found.dtype == torch.float32 and not torch.equal(found, found.round())
    # Pillow rounds after rows and after columns, each by half a level at most
    assert float((found - pillow).abs().max()) <= 1.01
    assert float(found.min()) >= 0 and float(found.max()) <= 255


def test_tensorflows_filter_is_its_rule() -> None:
    """Output i lies at input i * in / out, corners not centred; the last pixel goes on."""
    for side, size in ((20, 33), (20, 7), (1, 3)):
        images = IMAGES[..., :side, :side]
        found = Resize(size, "tf-bilinear")(images)
        values = images.double().numpy()
        for i in (0, 1, size // 2, size - 1):
            for j in (0, size - 1):
                y, x = i * side / size, j * side / size
                (a, b), (c, d) = (
                    (int(y), min(int(y) + 1, side - 1)),
                    (int(x), min(int(x) + 1, side - 1)),
                )
                u, v = y - a, x - c
                top = values[:, :, a, c] * (1 - v) + values[:, :, a, d] * v
                low = values[:, :, b, c] * (1 - v) + values[:, :, b, d] * v
                expected = top * (1 - u) + low * u
                assert np.allclose(found[:, :, i, j], expected, atol=1e-3)


def test_tensorflows_filter_is_torch_fidelitys() -> None:
    module = pytest.importorskip(
        "torch_fidelity.interpolate_compat_tensorflow", reason="torch-fidelity is not installed"
    )
    ours = Resize(299, "tf-bilinear")(IMAGES)
    theirs = module.interpolate_bilinear_2d_like_tensorflow1x(
        IMAGES.float(), size=(299, 299), align_corners=False
    )
    assert float((ours - theirs).abs().max()) < 1e-4


def test_images_of_the_size_stay_as_they_are() -> None:
    for name in FILTERS:
        assert Resize(20, name)(IMAGES) is IMAGES


def test_texts_and_bad_values() -> None:
    assert resize_of("299:tf-bilinear") == Resize(299, "tf-bilinear")
    assert resize_of("64") == Resize(64, "pil-bicubic")
    for bad in ("", "a", "12:", "-3", "0", "99999", "9" * 5000, "64:nearest"):
        with pytest.raises(InputError, match="resize"):
            resize_of(bad)
