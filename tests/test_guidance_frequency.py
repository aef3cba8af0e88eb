"""Guidance by frequency: the pyramid as matrices, the guider of diffusers, and what it keeps."""

from __future__ import annotations

import importlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from nets import flow_point
from torch import Tensor

import reg_engine
from reg_engine import FDG, Guidance, InputError, oracles
from reg_engine.guidance.frequency import pyramid
from reg_engine.networks.point import Point


def reflected(index: int, size: int) -> int:
    index = abs(index)
    return index if index < size else 2 * (size - 1) - index


def blur(size: int) -> np.ndarray:
    found = np.zeros((size, size))
    for i in range(size):
        for offset, weight in zip(range(-2, 3), (1, 4, 6, 4, 1), strict=True):
            found[i, reflected(i + offset, size)] += weight / 16
    return found


def resize(size: int, to: int) -> np.ndarray:
    """Bilinear, of pixels that are areas."""
    found = np.zeros((to, size))
    for i in range(to):
        place = min(max((i + 0.5) * size / to - 0.5, 0), size - 1)
        low = min(int(place), size - 1)
        found[i, low] += 1 - (place - low)
        found[i, min(low + 1, size - 1)] += place - low
    return found


def on_both(images: Tensor, *matrices: np.ndarray) -> Tensor:
    rows, columns = (torch.from_numpy(m) for m in matrices)
    return torch.einsum("ij,bcjk,lk->bcil", rows, images, columns)


def grown(coarse: Tensor, height: int, width: int) -> Tensor:
    h, w = coarse.shape[-2:]
    return on_both(coarse, blur(height) @ resize(h, height), blur(width) @ resize(w, width))


def by_matrices(images: Tensor, levels: int) -> list[Tensor]:
    found = []
    for _ in range(levels - 1):
        h, w = images.shape[-2:]
        coarse = on_both(images, resize(h, h // 2) @ blur(h), resize(w, w // 2) @ blur(w))
        found.append(images - grown(coarse, h, w))
        images = coarse
    return [*found, images]


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("size", "levels"), [((8, 8), 1), ((16, 8), 3), ((9, 14), 3), ((3, 4), 2)])
def test_the_pyramid_is_its_matrices(size: tuple[int, int], levels: int) -> None:
    found, wanted = pyramid(images(2, 3, *size), levels), by_matrices(images(2, 3, *size), levels)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_the_pyramid_is_that_of_kornia() -> None:
    kornia = pytest.importorskip("kornia.geometry.transform", reason="kornia is a test peer")
    found = pyramid(images(2, 3, 32, 32), 3)
    for one, other in zip(
        found, kornia.build_laplacian_pyramid(images(2, 3, 32, 32), 3), strict=True
    ):
        torch.testing.assert_close(one, other)


def at(*shape: int) -> tuple[Point, Tensor, Tensor]:
    p = replace(flow_point(shape[0]), x=images(*shape, seed=1))
    return p, images(*shape, seed=2), images(*shape, seed=3)


@pytest.mark.parametrize("scales", [(10.0, 5.0), (7.0, 3.0, 1.5)])
@pytest.mark.parametrize("parallel", [1.0, 0.3])
def test_equal_diffusers_guider(
    scales: tuple[float, ...], parallel: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes its pyramid from kornia, here from the matrices; its scale counts from 0."""
    name = "diffusers.guiders.frequency_decoupled_guidance"
    pytest.importorskip("diffusers.guiders", reason="diffusers is a test peer")
    guiders = importlib.import_module(name)
    monkeypatch.setattr(guiders, "_CAN_USE_KORNIA", True)
    monkeypatch.setattr(guiders, "build_laplacian_pyramid_func", by_matrices)
    up = lambda coarse: grown(coarse, *(2 * n for n in coarse.shape[-2:]))  # noqa: E731
    monkeypatch.setattr(guiders, "upsample_and_blur_func", up)
    guider = guiders.FrequencyDecoupledGuidance(
        [s - 1 for s in scales], parallel_weights=parallel, use_original_formulation=True
    )
    guider.set_state(step=5, num_inference_steps=20, timestep=torch.tensor(500))
    p, cond, ref = at(2, 3, 16, 16)
    wanted = guider.forward(p.to_prediction(cond), p.to_prediction(ref)).pred
    found = p.to_prediction(cond + FDG(scales, parallel)(p, cond, ref))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_equal_scales_are_cfg_at_any_size() -> None:
    p, cond, ref = at(2, 3, 9, 14)
    torch.testing.assert_close(FDG((4.0, 4.0, 4.0))(p, cond, ref), 3 * (cond - ref))
    torch.testing.assert_close(FDG((4.0,))(p, cond, ref), 3 * (cond - ref))


def test_a_scale_of_one_leaves_its_level_alone() -> None:
    p, cond, ref = at(2, 1, 16, 16)
    levels = by_matrices(cond - ref, 2)
    fine = FDG((3.0, 1.0))(p, cond, ref)
    torch.testing.assert_close(fine, 2 * levels[0])
    coarse = FDG((1.0, 3.0))(p, cond, ref)
    torch.testing.assert_close(coarse, 2 * grown(levels[1], 16, 16))


def test_videos_are_blurred_picture_by_picture() -> None:
    p, cond, ref = at(2, 3, 4, 8, 8)
    found = FDG((5.0, 2.0), 0.5)(p, cond, ref)
    whole = FDG((5.0, 2.0))(p, cond, ref)
    for frame in range(4):
        q, c, r = replace(p, x=p.x[:, :, frame]), cond[:, :, frame], ref[:, :, frame]
        torch.testing.assert_close(whole[:, :, frame], FDG((5.0, 2.0))(q, c, r))
    assert not torch.allclose(found, whole)


def test_the_weight_multiplies_what_it_brings() -> None:
    """w = 1 at scale 2, Guidance's default; a run of 2 x the weight is one of other scales."""
    model = reg_engine.load_model("mnist")
    choices = {"steps": 2, "solver": "euler", "progress": False}
    runs = [
        reg_engine.sample(model, [3], guidance=Guidance(w, rectify=None, direction=d), **choices)
        for w, d in ((2.0, FDG((5.0, 3.0))), (3.0, FDG((3.0, 2.0))))
    ]
    torch.testing.assert_close(runs[0].samples, runs[1].samples, rtol=1e-4, atol=1e-4)


def test_what_has_no_levels_is_an_error_of_one_line() -> None:
    with pytest.raises(InputError, match=r"^direction: FDG takes images, and samples are \(2,\)"):
        guidance = Guidance(direction=FDG(), rectify=None)
        reg_engine.sample(oracles.two_class_2d().denoiser(), 0, guidance=guidance, progress=False)
    with pytest.raises(InputError, match=r"^direction: .* \(2, 2\) .*Give 3 scales at most"):
        pyramid(images(1, 1, 8, 8), 4)
    for bad in ((), (-1.0,), (float("inf"), 1.0), "x", None):
        with pytest.raises(InputError, match="^scales"):
            FDG(bad)  # type: ignore[arg-type]
