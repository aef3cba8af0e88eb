"""Directions against independent statements of their papers, and against diffusers' guiders."""

from __future__ import annotations

import math

import pytest
import torch
from nets import flow_point, pair

from reg_engine import InputError
from reg_engine.guidance.directions import APG, TCFG, CFGZeroStar, Delta


def test_neutral_settings_are_cfg() -> None:
    p = flow_point()
    cond, ref = pair(p)
    apg = APG(momentum=0.0, radius=math.inf, parallel=1.0)
    assert torch.allclose(apg(p, cond, ref), Delta()(p, cond, ref), rtol=1e-12)


def test_apg_is_orthogonal_limited_and_remembers() -> None:
    p = flow_point()
    cond, ref = pair(p)
    limited = APG(momentum=0.0, radius=0.5)(p, cond, ref)
    assert (limited * cond).flatten(1).sum(1).abs().max() < 1e-12
    full = APG(momentum=0.0, radius=0.5, parallel=1.0)(p, cond, ref)
    assert torch.allclose(full.flatten(1).norm(dim=1), torch.full((4,), 0.5).double())
    wide = APG(momentum=0.0, radius=1e3, parallel=1.0)(p, cond, ref)
    assert torch.allclose(wide, cond - ref, rtol=1e-12), "a direction within the radius is kept"
    p.memory.clear()
    apg = APG(momentum=-0.5, parallel=1.0)
    deltas = []
    for seed in (3, 4, 5):
        c, r = pair(p, seed)
        deltas.append(c - r)
        got = apg(p, c, r)
    wanted = deltas[2] - 0.5 * (deltas[1] - 0.5 * deltas[0])
    assert torch.allclose(got, wanted, rtol=1e-10)


def test_cfg_zero_star_fits_the_reference() -> None:
    p = flow_point()
    cond, ref = pair(p)
    got = p.delta_to_prediction(CFGZeroStar()(p, cond, ref))
    c, u = p.to_prediction(cond).flatten(1), p.to_prediction(ref).flatten(1)
    fit = torch.stack(
        [torch.linalg.lstsq(b[:, None], a[:, None]).solution[0] for a, b in zip(c, u, strict=True)]
    )
    assert torch.allclose(got.flatten(1), c - fit * u, rtol=1e-9)
    # What is left is orthogonal to the reference: the least-squares optimum.
    assert (got.flatten(1) * u).sum(1).abs().max() < 1e-10


def test_tcfg_is_the_singular_value_projection() -> None:
    p = flow_point()
    cond, ref = pair(p)
    got = p.delta_to_prediction(TCFG()(p, cond, ref)).flatten(1)
    c, u = p.to_prediction(cond).flatten(1), p.to_prediction(ref).flatten(1)
    for k in range(len(c)):
        _, _, v = torch.linalg.svd(torch.stack([c[k], u[k]]), full_matrices=False)
        kept = u[k] - (u[k] @ v[1]) * v[1]
        assert torch.allclose(got[k], c[k] - kept, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [1.5, 4.0])
def test_equal_diffusers_guiders(scale: float) -> None:
    """Same guided prediction as diffusers' own classes, on the network's prediction."""
    guiders = pytest.importorskip("diffusers.guiders", reason="diffusers is a test peer")
    p = flow_point()
    cond, ref = pair(p)
    c, u = p.to_prediction(cond), p.to_prediction(ref)
    cases = [
        (guiders.ClassifierFreeGuidance(guidance_scale=scale), Delta()),
        (guiders.TangentialClassifierFreeGuidance(guidance_scale=scale), TCFG()),
        (
            guiders.ClassifierFreeZeroStarGuidance(guidance_scale=scale, zero_init_steps=0),
            CFGZeroStar(),
        ),
    ]
    for guider, direction in cases:
        guider.set_state(step=5, num_inference_steps=20, timestep=torch.tensor(500))
        out = guider.forward(c, u)
        wanted = out.pred if hasattr(out, "pred") else out[0]
        got = p.to_prediction(cond + (scale - 1) * direction(p, cond, ref))
        # The TCFG guider takes its singular vectors in float32, whatever it is given.
        assert (got - wanted).abs().max() <= 1e-6 * scale * wanted.abs().max(), type(
            guider
        ).__name__


@pytest.mark.parametrize("bad", [{"momentum": 1.0}, {"radius": 0.0}, {"parallel": -0.1}])
def test_options_are_checked(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        APG(**bad)
