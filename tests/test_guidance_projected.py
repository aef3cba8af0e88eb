"""APG over some dimensions, APG after CFG, and what is tangential: against their peers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from nets import flow_point, pair, tiny
from rerun import Rerun
from torch import Tensor

from reg_engine import APG, TAG, APGMix, Delta, Engine, Guidance, Guide, InputError, oracles
from reg_engine import schedules as chains
from reg_engine.loop.graphs import Graphs
from reg_engine.networks.point import Point
from reg_engine.noise import SampleNoise


def at(*shape: int) -> tuple[Point, Tensor, Tensor]:
    g = torch.Generator().manual_seed(5)
    x, cond, ref = (torch.randn(*shape, generator=g, dtype=torch.float64) for _ in range(3))
    return replace(flow_point(shape[0]), x=x), cond, ref


@pytest.mark.parametrize("dims", [None, -1, 1, (-2, -1), (1, 2, 3), (-3, 3)])
@pytest.mark.parametrize("radius", [1.5, 1e9])
def test_apg_is_that_of_diffusers_over_any_dimensions(dims: Any, radius: float) -> None:
    """Original formulation: cond + scale * update, so its scale counts from 0."""
    guiders = pytest.importorskip("diffusers.guiders", reason="diffusers is a test peer")
    guider = guiders.AdaptiveProjectedGuidance(
        3.0, -0.4, radius, dims, eta=0.3, use_original_formulation=True
    )
    apg, memory = APG(-0.4, radius, 0.3, dims), {}
    for step in range(3):
        p, cond, ref = at(2, 3, 4, 5)
        cond = cond + step
        guider.set_state(step=step, num_inference_steps=20, timestep=torch.tensor(500))
        if step == 0:
            guider.prepare_inputs({"x": (cond, ref)})
        wanted = guider.forward(cond, ref).pred
        found = cond + 3.0 * apg(replace(p, memory=memory), cond, ref)
        torch.testing.assert_close(found, wanted)


def test_all_dimensions_are_none() -> None:
    p, cond, ref = at(2, 3, 4, 5)
    named = APG(0.0, 1.5, 0.2, (1, 2, 3))(p, cond, ref)
    torch.testing.assert_close(named, APG(0.0, 1.5, 0.2)(p, cond, ref))
    apart = APG(0.0, 1.5, 0.2, (-2, -1))(p, cond, ref)
    assert float((apart.flatten(2).norm(dim=2)).max()) <= 1.5 + 1e-12
    assert not torch.allclose(apart, named)


@pytest.mark.parametrize("dims", [0, (), (0, 1), "x", 1.5, (1, None), True])
def test_dimensions_of_no_kind_are_refused(dims: Any) -> None:
    with pytest.raises(InputError, match="^norm_dim"):
        APG(norm_dim=dims)


@pytest.mark.parametrize("dims", [4, -4, (1, -3), (1, 1)])
def test_dimensions_that_a_sample_lacks_are_refused_by_the_call(dims: Any) -> None:
    p, cond, ref = at(2, 3, 4, 5)
    with pytest.raises(InputError, match="^norm_dim: .* 4 dimensions"):
        APG(norm_dim=dims)(p, cond, ref)


def test_the_mix_is_that_of_diffusers() -> None:
    guiders = pytest.importorskip("diffusers.guiders", reason="diffusers is a test peer")
    guider = guiders.AdaptiveProjectedMixGuidance(
        guidance_scale=2.5, adaptive_projected_guidance_scale=9.0, use_original_formulation=True
    )
    mix, memory = APGMix(), {}
    for step in range(9):
        p, cond, ref = at(2, 3, 4, 5)
        cond = cond + step
        guider.set_state(step=step, num_inference_steps=20, timestep=torch.tensor(500))
        guider.prepare_inputs({"x": (cond, ref)})
        wanted = guider.forward(cond, ref).pred
        found = cond + mix(replace(p, memory=memory, index=step), cond, ref)
        torch.testing.assert_close(found, wanted)


def test_the_mix_turns_after_its_evaluations_and_averages_from_the_first() -> None:
    p, cond, ref = at(2, 3, 4, 4)
    mix = APGMix((3.0, 5.0), Delta(), APG(-0.5, parallel=1.0), after=2)
    found = [mix(replace(p, index=i), cond, ref) for i in range(4)]
    delta, mean = cond - ref, [1.0, 0.5, 0.75, 0.625]
    torch.testing.assert_close(found[:2], [2 * delta] * 2)
    torch.testing.assert_close(found[2:], [4 * m * delta for m in mean[2:]])
    always = APGMix((3.0, 5.0), Delta(), Delta(), after=0)
    torch.testing.assert_close(always(replace(p, index=0), cond, ref), 4 * delta)


def test_a_captured_mix_and_a_guides_turn_where_the_eager_one_does() -> None:
    guidance = Guidance(direction=APGMix(after=3), rectify=None)
    choices: dict[str, Any] = {"solver": "euler", "steps": 6, "progress": False}
    labels = torch.tensor([0, 1, 2])
    eager = Engine(tiny(), guidance=guidance, **choices)
    captured = Engine(tiny(), guidance=guidance, **choices)
    captured._graphs = Graphs(Rerun(), always=True)
    found = captured.sample(labels)
    assert found.stats.capture == "captured"
    torch.testing.assert_close(found.samples, eager.sample(labels).samples, rtol=1e-4, atol=1e-5)
    guide = Guide(tiny(), labels, guidance=guidance)
    for step in eager.steps(labels):
        torch.testing.assert_close(guide(step.x, step.t), step.guided, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        ({"scales": (1.0,)}, "scales"),
        ({"scales": 3}, "scales"),
        ({"scales": (1.0, -1.0)}, "scales"),
        ({"first": APG}, "first"),
        ({"then": None}, "then"),
        ({"after": -1}, "after"),
        ({"after": 1.5}, "after"),
    ],
)
def test_a_bad_mix_is_named(bad: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=f"^{name}"):
        APGMix(**bad)


@pytest.mark.parametrize("amplify", [1.0, 1.3, 0.0])
def test_tag_is_algorithm_1(amplify: float) -> None:
    """A whole DDIM run on an exact model, each step split by projectors that are written out."""
    mixture, schedule = oracles.two_class_2d(), chains.VPLinear()
    engine = Engine(
        mixture.denoiser(prediction="epsilon", schedule=schedule),
        guidance=Guidance(3.0, rectify=None, adjust=TAG(amplify)), solver="ddim", steps=6,
        dtype=torch.float64, progress=False,
    )  # fmt: skip
    labels = torch.tensor([0, 1, 0])
    x = SampleNoise(range(3)).normal(torch.empty(3, 2).double())
    for row in engine.table.rows:
        (a, s), (a_s, s_s) = schedule(row.t), schedule(row.s)
        eps = [(x - a * mixture.denoised(x, a, s, y)) / s for y in (labels, 2)]
        mixed = eps[1] + 3.0 * (eps[0] - eps[1])
        change = a_s / a * x + (s_s - a_s * s / a) * mixed - x
        unit = x / x.norm(dim=1, keepdim=True)
        along = torch.einsum("bi,bj,bj->bi", unit, unit, change)
        x = x + along + amplify * (change - along)
    found = engine.sample(labels).samples
    torch.testing.assert_close(found, x, rtol=1e-8, atol=1e-8)


def test_tag_of_a_state_at_the_origin_amplifies_all() -> None:
    p = flow_point()
    cond, guided = pair(p)
    p.x.zero_()
    torch.testing.assert_close(TAG(1.3)(p, guided, cond), 1.3 * guided)
    with pytest.raises(InputError, match="^amplify"):
        TAG(-0.1)
