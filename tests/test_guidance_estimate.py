"""What a row evaluates: fused predictions against plain arithmetic, and weights of each sample."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nets import TinyNet, tiny
from torch import Tensor

import reg_engine
from reg_engine import (
    Clip,
    Denoiser,
    Engine,
    Guidance,
    Guide,
    InputError,
    Plan,
    Rescale,
    ZeroInit,
    schedules,
)

LABELS = torch.tensor([0, 1, 2, 1])
EXACT = {"dtype": torch.float64, "progress": False}
ADJUSTMENTS = {
    "none": (),
    "rescale": (Rescale(0.7),),
    "zero": (ZeroInit(2),),
    "both": (ZeroInit(1), Rescale(1.0)),
    "twice": (Rescale(0.5), Rescale(0.7)),
    "clip": (Clip(0.6),),
    "rescaled and clipped": (Rescale(0.7), Clip(0.6)),
    "clipped and rescaled": (Clip(0.6), Rescale(0.7)),
}


def difference(at: Any, cond: Tensor, ref: Tensor) -> Tensor:
    """Delta(), which nobody knows to be it: nothing is fused."""
    return cond - ref


def model(prediction: str = "epsilon") -> Denoiser:
    schedule = {"epsilon": schedules.VPLinear(), "flow": schedules.Flow()}.get(prediction)
    return tiny(prediction, schedule, TinyNet().double())


@pytest.mark.parametrize("adjust", ADJUSTMENTS.values(), ids=ADJUSTMENTS)
@pytest.mark.parametrize("prediction", ["epsilon", "flow", "edm"])
@pytest.mark.parametrize("solver", ["ddpm", "dpmpp_2m"])
def test_a_fused_row_is_plain_arithmetic(prediction: str, adjust: Any, solver: str) -> None:
    denoiser = model(prediction)
    found = []
    for direction in ({}, {"direction": difference}):
        guidance = Guidance(4.0, rectify=None, adjust=adjust, **direction)
        engine = Engine(denoiser, guidance=guidance, solver=solver, steps=5, **EXACT)
        assert engine.fused == (not direction and adjust != ADJUSTMENTS["clipped and rescaled"])
        found.append(engine.sample(LABELS).samples)
    assert torch.allclose(*found, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("keep", [False, True])
def test_a_solvers_clip_is_fused_too(keep: bool) -> None:
    denoiser, options = model(), {"clip": 0.6, "keep_epsilon": keep}
    choices = {"solver": "ddim", "solver_options": options, "steps": 6, **EXACT}
    fused = Engine(denoiser, scale=4.0, rectify=None, **choices)
    clipped = Clip(0.6, keep)

    def plain(at: Any, guided: Tensor, cond: Tensor) -> Tensor:
        return clipped(at, guided, cond)

    guidance = Guidance(4.0, rectify=None, direction=difference, adjust=(plain,))
    choices.pop("solver_options")
    wanted = Engine(denoiser, guidance=guidance, **choices).sample(LABELS).samples
    found = fused.sample(LABELS).samples
    assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-11)
    without = Engine(denoiser, scale=4.0, rectify=None, **choices).sample(LABELS).samples
    assert (found - without).abs().max() > 0.01


@pytest.mark.parametrize("adjust", ADJUSTMENTS.values(), ids=ADJUSTMENTS)
@pytest.mark.parametrize("rectify", [None, "vjp"])
def test_steps_tell_what_the_solver_took(adjust: Any, rectify: str | None) -> None:
    """x_s = a x + b guided of a solver of one stage; the samples are those of an untold run."""
    guidance = Guidance(4.0, rectify=rectify, adjust=adjust)
    engine = Engine(model(), guidance=guidance, solver="ddim", steps=5, **EXACT)
    wanted = engine.sample(LABELS).samples
    for step in engine.steps(LABELS):
        row = engine.table.rows[step.index]
        landed = row.a * step.x + row.b[0] * step.guided
        assert torch.allclose(step.x_next, landed, rtol=1e-9, atol=1e-11)
        place = engine.denoiser.at(row.t)
        cond = engine.denoiser.evaluate(step.x, place, LABELS)
        assert torch.allclose(step.cond, cond, rtol=1e-9)
    assert torch.equal(step.x_next, wanted)


def test_a_delta_that_an_estimator_asks_for_is_kept() -> None:
    """A plan of both: the lagged estimator finds the delta of the `cfg` row before."""
    plan = Plan((1.0,), ("reg", "cfg"))
    for rectify, fused in (("fd_batched", False), ("jvp", False), ("vjp", True), ("paper", True)):
        engine = Engine(model("edm"), scale=3.0, rectify=rectify, plan=plan, steps=6, **EXACT)
        found = engine.sample(LABELS).samples
        assert engine.fused == fused and {"cfg", "reg"} == set(engine.modes)
        guidance = Guidance(3.0, rectify=rectify, direction=difference)
        other = Engine(model("edm"), guidance=guidance, plan=plan, steps=6, **EXACT)
        assert torch.allclose(found, other.sample(LABELS).samples, rtol=1e-6)


class Each:
    """w of each sample, whatever the networks say."""

    def __init__(self, *w: float) -> None:
        self.w = torch.tensor(w)

    def per_sample(self, at: Any, cond: Tensor, delta: Tensor) -> Tensor:
        assert cond.shape == delta.shape == at.x.shape
        return self.w


@pytest.mark.parametrize(
    "adjust", [(), (Rescale(0.7),), (Clip(0.6),)], ids=["-", "rescale", "clip"]
)
@pytest.mark.parametrize("rectify", [None, "vjp", "fd_batched", "paper"])
def test_each_sample_is_guided_by_its_own_weight(rectify: str | None, adjust: Any) -> None:
    weights = (0.0, 1.0, 3.5, 0.5)
    choices = {"solver": "dpmpp_2m", "steps": 5, **EXACT}
    guidance = Guidance(Each(*weights), rectify=rectify, adjust=adjust)
    found = reg_engine.sample(model(), LABELS, guidance=guidance, **choices).samples
    for i, w in enumerate(weights[1:], 1):
        alone = Guidance(1 + w, rectify=rectify, adjust=adjust)
        wanted = reg_engine.sample(model(), LABELS, guidance=alone, **choices).samples
        assert torch.allclose(found[i], wanted[i], rtol=1e-6, atol=1e-8)
    if not adjust:
        wanted = reg_engine.sample(model(), LABELS, scale=1.0, **choices).samples
        assert torch.allclose(found[0], wanted[0], rtol=1e-9)


def test_rows_without_weight_are_not_guided() -> None:
    class Late(Each):
        def __call__(self, row: Any, table: Any) -> float:
            return 0.0 if row.noise_level > 1 else 1.0

    engine = Engine(model("edm"), guidance=Guidance(Late(1, 2, 3, 4)), steps=6, progress=False)
    levels = [row.noise_level > 1 for row in engine.table.rows]
    assert [mode == "cond" for mode in engine.modes] == levels and len(set(levels)) == 2


def test_a_weight_remembers_from_row_to_row() -> None:
    """A running mean in the memory: empty at the first row of every batch."""
    seen: list[tuple[bool, bool]] = []

    class Running:
        def per_sample(self, at: Any, cond: Tensor, delta: Tensor) -> Tensor:
            size = delta.flatten(1).norm(dim=1)
            before = at.memory.get("size")
            seen.append((before is None, "delta" in at.memory))
            at.memory["size"] = size if before is None else 0.5 * (before + size)
            return at.memory["size"] / size

    guidance = Guidance(Running(), rectify=None)
    engine = Engine(model(), guidance=guidance, solver="ddim", batch_size=2, steps=3, **EXACT)
    engine.sample(LABELS)
    rows = len(engine.table.rows)
    assert seen == ([(True, False)] + [(False, True)] * (rows - 1)) * 2


def test_a_guide_weighs_each_sample_too() -> None:
    x = torch.randn(4, *model().sample_shape, generator=torch.Generator().manual_seed(0)).double()
    guide = Guide(model("edm"), LABELS, guidance=Guidance(Each(0.5, 1, 2, 3), rectify=None))
    found = guide(x, 1.0)
    for i, w in enumerate((0.5, 1.0, 2.0, 3.0)):
        alone = Guide(model("edm"), LABELS, scale=1 + w, rectify=None)
        assert torch.allclose(found[i], alone(x, 1.0)[i], rtol=1e-9)


@pytest.mark.parametrize("wrong", [2.0, torch.ones(3), torch.ones(4, 1), None])
def test_weights_that_are_not_one_a_sample_are_refused(wrong: Any) -> None:
    class Wrong:
        def per_sample(self, at: Any, cond: Tensor, delta: Tensor) -> Any:
            return wrong

    with pytest.raises(InputError, match=r"weight.*Return w of shape \(4,\)"):
        reg_engine.sample(model(), LABELS, guidance=Guidance(Wrong(), rectify=None), steps=2)
