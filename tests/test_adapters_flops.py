"""Models at their real size: their parameters, and a guided step's shapes and FLOPs."""

from __future__ import annotations

import pytest

pytest.importorskip("diffusers")

from family_flops import MODELS, counted

PUBLISHED = (0.86e9, 2.57e9, 2.03e9, 11.90e9)  # parameters
SHAPES = ((4, 64, 64), (4, 128, 128), (16, 128, 128), (16, 128, 128))


def flux(width: int = 3072, tokens: int = 4096 + 512, blocks: int = 19 + 38) -> float:
    """Of a pass: 12 width^2 weights a token and block, and attention among all tokens."""
    return blocks * (24 * width**2 * tokens + 4 * tokens**2 * width)


CFG = {"FLUX.1-dev, 1024 x 1024": 2 * flux(), "Stable Diffusion 1.5, 512 x 512": 2 * 0.803e12}


@pytest.mark.parametrize(
    ("name", "parameters", "shape"),
    [
        pytest.param(*case, marks=() if number == 2 else pytest.mark.slow)
        for number, case in enumerate(zip(MODELS, PUBLISHED, SHAPES, strict=True))
    ],
)
def test_a_guided_step_at_real_size(name: str, parameters: float, shape: tuple[int, ...]) -> None:
    found, flops, shapes = counted(MODELS[name])
    assert found == pytest.approx(parameters, rel=0.005) and shapes == {(1, *shape)}
    assert flops["None"] == pytest.approx(CFG.get(name, flops["None"]), rel=0.003)
    ratios = {key: value / flops["None"] for key, value in flops.items()}
    assert ratios["fd"] == pytest.approx(1.5, abs=1e-5)
    assert ratios["fd_batched"] == pytest.approx(1.5, abs=1e-5)
    assert 1.5 < ratios["vjp"] < 1.7  # back to x alone: the weights are frozen
    assert 1.5 < ratios["jvp"] < 1.7  # attention has 4 products a tangent row
