"""Weights of each sample, and the corners of a row: memory, scale 0, networks in half precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from nets import TinyNet, tiny
from rerun import Rerun
from torch import Tensor

import reg_engine
from reg_engine import (
    APG,
    Clip,
    Delta,
    Engine,
    Guidance,
    Guide,
    InputError,
    Plan,
    Rescale,
    Term,
    Unconditional,
)
from reg_engine.loop.graphs import Graphs
from reg_engine.resume import engine_key

LABELS = torch.tensor([0, 1, 2, 1])
EXACT: dict[str, Any] = {"dtype": torch.float64, "progress": False}


def model() -> Any:
    return tiny(net=TinyNet().double())


def samples(**choices: Any) -> Tensor:
    return reg_engine.sample(model(), LABELS, solver="euler", steps=4, **choices, **EXACT).samples


class HalfNet(TinyNet):
    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        h = self.enter(x.flatten(1)) + self.label(cond) + t[:, None].cos().to(x.dtype)
        return self.leave(torch.tanh(h)).reshape_as(x)


class Each:
    def __init__(self, *w: float) -> None:
        self.w = torch.tensor(w)

    def per_sample(self, point: Any, cond: Tensor, delta: Tensor) -> Tensor:
        return self.w


def test_a_weight_may_remember_the_state() -> None:
    """point.x is stepped in place: memory["x"] is then the new state, in `sample` alone."""

    class Moved:
        def per_sample(self, point: Any, cond: Tensor, delta: Tensor) -> Tensor:
            before = point.memory.get("x")
            point.memory["x"] = point.x
            ones = torch.ones(len(cond), dtype=cond.dtype)
            return ones if before is None else ones + (point.x - before).flatten(1).norm(dim=1)

    choices = {"guidance": Guidance(Moved(), rectify=None), "solver": "euler", "steps": 4, **EXACT}
    plain = Engine(model(), **choices).sample(LABELS).samples
    *_, last = Engine(model(), **choices).steps(LABELS)
    assert torch.equal(plain, last.x_next)


def test_a_guides_caller_may_step_in_place() -> None:
    """memory["x"] is the state that was asked about, not what became of it."""
    seen = []

    class Remembers:
        def per_sample(self, point: Any, cond: Tensor, delta: Tensor) -> Tensor:
            seen.append(point.memory.get("x"))
            point.memory["x"] = point.x
            return torch.ones(len(cond))

    guide = Guide(model(), LABELS, guidance=Guidance(Remembers(), rectify=None))
    x = torch.ones(4, *guide.denoiser.sample_shape, dtype=torch.float64)
    asked = x.clone()
    guide(x, 2.0)
    x.mul_(0.5)
    guide(x, 1.0)
    assert seen[0] is None and torch.equal(seen[1], asked)


def test_a_step_tells_cond_of_a_half_network_as_finely_as_the_state() -> None:
    denoiser = tiny(net=HalfNet().bfloat16())
    engine = Engine(denoiser, scale=3.0, rectify=None, solver="euler", steps=5, progress=False)
    for step in engine.steps(LABELS):
        with torch.no_grad():
            wanted = engine.denoiser(step.x, step.t, LABELS)
        assert torch.allclose(step.cond, wanted, rtol=1e-5, atol=1e-6)


def test_a_guide_keeps_the_delta_of_cfg_calls() -> None:
    """As the engine does, for the lagged estimator of the next call."""
    choices = {"scale": 3.0, "rectify": "fd_batched", "plan": Plan((1.0,), ("reg", "cfg"))}
    engine = Engine(model(), solver="euler", steps=6, **choices, **EXACT)
    guide = Guide(model(), LABELS, **choices)
    for step in engine.steps(LABELS):
        assert torch.allclose(guide(step.x, step.t), step.guided, rtol=1e-9)


def test_an_adjustment_may_have_a_number_called_gain() -> None:
    @dataclass(frozen=True)
    class Boost:
        gain: float = 1.1

        def __call__(self, point: Any, guided: Tensor, cond: Tensor) -> Tensor:
            return self.gain * guided

    assert samples(guidance=Guidance(3.0, rectify=None, adjust=Boost())).isfinite().all()


def test_weights_of_one_class_over_two_numbers_have_two_keys() -> None:
    def make(w: float) -> Any:
        class Fixed:
            def per_sample(self, point: Any, cond: Tensor, delta: Tensor) -> Tensor:
                return torch.full((len(cond),), w)

        return Fixed()

    keys = {engine_key(Engine(model(), guidance=Guidance(make(w)), steps=2)) for w in (1.0, 2.0)}
    assert len(keys) == 2


def test_a_captured_rescale_is_the_eager_one() -> None:
    """At a scale that float32 does not hold."""
    guidance = Guidance(1.3, rectify=None, adjust=Rescale())
    choices = {"guidance": guidance, "steps": 5, "progress": False}
    eager, captured = Engine(tiny(), **choices), Engine(tiny(), **choices)
    captured._graphs = Graphs(Rerun(), always=True)
    assert torch.equal(eager.sample(LABELS).samples, captured.sample(LABELS).samples)


class NanRef(TinyNet):
    """No number for the null label of the batch's first sample."""

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        first = (torch.arange(len(cond)) % 4 == 0) & (cond == 3)
        return torch.where(first[:, None, None, None], torch.nan, super().forward(x, t, cond))


def test_a_sample_without_weight_is_not_guided_beside_terms_or_adjustments() -> None:
    """guided_step: weight 0 = not guided, whatever lies beside; the other paths multiply by 0."""
    denoiser, weight = tiny(net=NanRef().double()), Each(0.0, 1.0, 1.0, 1.0)
    for guidance in (
        Guidance(weight, rectify=None, adjust=Rescale()),
        Guidance(terms=(Term(weight, Unconditional(), None),)),
    ):
        choices = {"guidance": guidance, "solver": "euler", "steps": 3, **EXACT}
        assert reg_engine.sample(denoiser, LABELS, **choices).samples.isfinite().all()


def test_a_steps_cond_is_the_reference_where_it_alone_is_evaluated() -> None:
    engine = Engine(model(), scale=0.0, solver="euler", steps=3, **EXACT)
    step = next(iter(engine.steps(LABELS)))
    with torch.no_grad():
        wanted = engine.denoiser(step.x, step.t, torch.full((4,), engine.denoiser.null_cond))
    assert torch.allclose(step.cond, wanted) and torch.equal(step.cond, step.guided)


def test_a_clip_needs_no_cond_at_scale_0() -> None:
    guidance = Guidance(0.0, rectify=None, adjust=Clip(0.3))
    engine = Engine(model(), guidance=guidance, solver="euler", steps=3, **EXACT)
    out = engine.sample(LABELS)
    assert set(engine.modes) == {"ref"} and out.stats.nfe == 3
    assert float(out.samples.abs().max()) == 0.3


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_weight_that_is_no_number_is_blamed(value: float) -> None:
    guidance = Guidance(Each(1.0, 1.0, value, 1.0), rectify=None)
    with pytest.raises(InputError, match=r"weight: per_sample returned NaN or Inf for .* \[2\]"):
        samples(guidance=guidance)


def test_a_rectifier_must_return_three() -> None:
    guidance = Guidance(3.0, rectify=lambda point, direction: point.x)
    with pytest.raises(InputError, match=r"rectify: returned a Tensor. Return \(cond, rectified"):
        samples(guidance=guidance)


def test_a_direction_that_is_made_of_delta_is_its_own() -> None:
    class Half(Delta):
        def __call__(self, point: Any, cond: Tensor, ref: Tensor) -> Tensor:
            return 0.5 * (cond - ref)

    halved = samples(guidance=Guidance(3.0, rectify=None, direction=Half()))
    assert torch.allclose(halved, samples(scale=2.0, rectify=None), rtol=1e-9)


def test_an_estimator_of_ones_own_finds_the_delta_of_cfg_rows() -> None:
    seen = []

    def lagged(point: Any, direction: Any) -> tuple[Tensor, Tensor, Tensor]:
        seen.append(point.memory.get("delta"))
        ref, cond = point.stack(point.x)
        delta = direction(point, cond, ref)
        return cond, delta, delta

    plan = Plan((1.0,), ("reg", "cfg"))
    samples(scale=3.0, rectify=lagged, plan=plan)
    assert seen and all(delta is not None for delta in seen)


@pytest.mark.parametrize("adjust", [(Clip(0.4), Rescale(0.7)), (Rescale(0.7), APG)], ids=["a", "b"])
def test_captured_rows_that_are_not_fused_are_the_eager_ones(adjust: Any) -> None:
    extra = {"direction": APG()} if adjust[-1] is APG else {}
    guidance = Guidance(3.0, rectify=None, adjust=tuple(a for a in adjust if a is not APG), **extra)
    choices = {"guidance": guidance, "steps": 4, **EXACT}
    eager, captured = Engine(model(), **choices), Engine(model(), **choices)
    captured._graphs = Graphs(Rerun(), always=True)
    found = captured.sample(LABELS)
    assert torch.allclose(found.samples, eager.sample(LABELS).samples, rtol=1e-9)
    assert found.stats.capture == "captured"
