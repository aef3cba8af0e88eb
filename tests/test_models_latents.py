"""What samples are of latents: the published constants, both ways, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_models_dit import small
from test_models_dit_guided import saved

from reg_engine.errors import InputError
from reg_engine.models import latents_of
from reg_engine.models.latents import EDM2_LATENTS, SD_LATENTS, Latents


def test_the_published_constants() -> None:
    """DiT decodes samples / 0.18215; EDM2 samples * deviation / 0.5 + mean, in [0, 1]."""
    samples = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(SD_LATENTS.decoded(samples), samples / 0.18215)
    deviations = torch.tensor([4.17, 4.62, 3.71, 3.28], dtype=torch.float64).reshape(4, 1, 1)
    means = torch.tensor([5.81, 3.25, 0.12, -2.15], dtype=torch.float64).reshape(4, 1, 1)
    found = EDM2_LATENTS.decoded(samples)
    torch.testing.assert_close(found, samples / 0.5 * deviations + means)
    assert SD_LATENTS.value_range == (-1.0, 1.0) and EDM2_LATENTS.value_range == (0.0, 1.0)


@pytest.mark.parametrize("latents", [SD_LATENTS, EDM2_LATENTS, Latents(2.0, (1.0, 2.0, 3.0, 4.0))])
def test_there_and_back(latents: Latents, tmp_path: Path) -> None:
    raw = torch.randn(3, 4, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(latents.decoded(latents.encoded(raw)), raw)
    assert Latents(**json.loads(json.dumps(latents.described()))) == latents
    path = saved(tmp_path / "net.safetensors", small(), latents=latents.described())
    assert latents_of(path) == latents


def test_models_of_pictures_have_none(tmp_path: Path) -> None:
    assert latents_of("mnist") is None
    path = saved(tmp_path / "net.safetensors", small(), latents={"scale": "large"})
    with pytest.raises(InputError, match="latents"):
        latents_of(path)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"scale": 0.0}, "scale"),
        ({"scale": float("inf")}, "scale"),
        ({"scale": ()}, "scale"),
        ({"scale": (1.0, -1.0)}, "scale"),
        ({"shift": float("nan")}, "shift"),
        ({"scale": (1.0, 2.0), "shift": (0.0, 1.0, 2.0)}, "shift"),
        ({"value_range": (1.0, 0.0)}, "value_range"),
    ],
)
def test_numbers_that_are_refused(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError) as caught:
        Latents(**arguments)
    assert caught.value.argument == named


def test_channels_that_are_not_the_models() -> None:
    with pytest.raises(InputError, match="samples"):
        EDM2_LATENTS.decoded(torch.zeros(1, 3, 2, 2))
