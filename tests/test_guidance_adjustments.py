"""Adjustments of the guided estimate: rescale against its formula, zero-init stands still."""

from __future__ import annotations

import pytest
import torch
from nets import CLASSES, SHAPE, TinyNet, flow_point, pair, tiny

import reg_engine
from reg_engine import Denoiser, Engine, Guidance, InputError
from reg_engine.guidance.adjustments import Clip, Rescale, ZeroInit
from reg_engine.schedules import Flow, VPLinear

LABELS = torch.tensor([0, 1, 2, 0, 1])
QUIET = {"progress": False}
DOUBLE = {"progress": False, "dtype": torch.float64}


def test_rescale_one_keeps_the_deviation_of_cond() -> None:
    before: list[torch.Tensor] = []
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def first(point: object, guided: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        before.append(point.to_prediction(guided))
        return guided

    def spy(point: object, guided: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        seen.append((point.to_prediction(guided), point.to_prediction(cond)))
        return guided

    guidance = Guidance(6.0, rectify=None, adjust=(first, Rescale(1.0), spy))
    net = TinyNet().double()
    reg_engine.sample(
        tiny(net=net), LABELS, guidance=guidance, steps=4, dtype=torch.float64, **QUIET
    )
    assert len(seen) == 7
    for unscaled, (guided, cond) in zip(before, seen, strict=True):
        # A deviation says nothing of the sign: the factor itself, positive and one a sample.
        factor = cond.flatten(1).std(1) / unscaled.flatten(1).std(1)
        assert torch.allclose(guided, factor[:, None, None, None] * unscaled, rtol=1e-12)
        assert torch.allclose(guided.flatten(1).std(1), cond.flatten(1).std(1), rtol=1e-12)
        assert (guided - cond).abs().max() > 1e-3, "guidance did nothing"


def test_rescale_mixes_by_its_share() -> None:
    """Eqs. 15-16 of arXiv 2305.08891, on predictions."""
    p = flow_point()
    cond, guided = pair(p)
    c, g = p.to_prediction(cond), p.to_prediction(guided)
    ratio = (c.flatten(1).std(1) / g.flatten(1).std(1))[:, None, None, None]
    for share in (0.0, 0.7, 1.0):
        got = p.to_prediction(Rescale(share)(p, guided, cond))
        assert torch.allclose(got, share * g * ratio + (1 - share) * g, rtol=1e-10)


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_rescale_leaves_a_flat_prediction(value: float) -> None:
    p = flow_point()
    cond, _ = pair(p)
    flat = p.from_prediction(torch.full_like(cond, value))
    assert torch.allclose(Rescale(1.0)(p, flat, cond), flat, rtol=1e-12)
    guidance = Guidance(3.0, rectify=None, adjust=(ZeroInit(2), Rescale()))
    out = reg_engine.sample(
        Denoiser(TinyNet(), "flow", Flow(), SHAPE, null_cond=CLASSES, num_classes=CLASSES),
        LABELS,
        guidance=guidance,
        steps=3,
        **QUIET,
    )
    assert out.samples.isfinite().all()


def test_zero_init_stands_still() -> None:
    p = flow_point()
    cond, _ = pair(p)
    still = ZeroInit(4)(p, cond, cond)
    assert p.to_prediction(still).abs().max() < 1e-12
    assert ZeroInit(3)(p, cond, cond) is cond


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("keep", [False, True])
def test_clipping_holds_at_every_evaluation(keep: bool, scale: float) -> None:
    """DDIM on clip(guided), with epsilon of the estimate before or after, written out."""
    model = tiny("sample", VPLinear(), net=TinyNet().double())
    unit = torch.randn(5, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    options = {"clip": 0.4, "keep_epsilon": keep}
    choices = {"solver": "ddim", "steps": 5, "solver_options": options, "rectify": None, **DOUBLE}
    engine = Engine(model, scale=scale, **choices)
    x = engine.table.init_scale * unit
    for row in engine.table.rows:
        with torch.no_grad():
            cond, ref = model(x, row.t, LABELS), model(x, row.t, torch.full((5,), CLASSES))
        raw = ref + scale * (cond - ref)
        clipped = raw.clamp(-0.4, 0.4)
        assert (raw != clipped).any() and (raw == clipped).any()
        epsilon = (x - row.alpha * (raw if keep else clipped)) / row.sigma
        x = row.alpha_s * clipped + row.sigma_s * epsilon
    got = engine.sample(LABELS, noise=unit).samples
    assert torch.allclose(got, x, rtol=1e-9, atol=1e-9)


def test_clipping_as_an_adjustment() -> None:
    p = flow_point()
    cond, guided = pair(p)
    assert Clip(0.1)(p, guided, cond).abs().max() == 0.1
    kept, row = Clip(0.1, keep_epsilon=True)(p, guided, cond), p.row
    # x_s = a x + b kept is alpha_s clipped + the noise of the unclipped estimate
    clipped, eps = guided.clamp(-0.1, 0.1), (p.x - row.alpha * guided) / row.sigma
    alpha_s, sigma_s = p.denoiser.schedule(row.s)
    wanted = alpha_s * clipped + sigma_s * eps
    assert torch.allclose(row.a * p.x + row.b[0] * kept, wanted, rtol=1e-10)
    with pytest.raises(InputError, match="keep_epsilon"):
        guidance = Guidance(2.0, adjust=Clip(0.1, keep_epsilon=True))
        Engine(tiny(), guidance=guidance, solver="heun", steps=3)
    with pytest.raises(InputError, match="limit"):
        Clip(0.0)


def test_options_are_checked() -> None:
    with pytest.raises(InputError, match="share"):
        Rescale(1.5)
    with pytest.raises(InputError, match="evaluations"):
        ZeroInit(-1)
