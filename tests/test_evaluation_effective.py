"""Effective scales: CFG has its own, weights that vary have their mean, REG what K leaves."""

from __future__ import annotations

import pytest
import torch
from adapter_cases import adapter, model
from nets import CLASSES, Shy, TinyNet, tiny

from reg_engine import APG, Constant, Guidance, Interval, Linear
from reg_engine.engine import Engine
from reg_engine.evaluation.effective import effective_scales, scales_of
from reg_engine.guidance.damped import Damped
from reg_engine.guidance.weights import weights_of

LABELS, SEEDS = torch.arange(7) % CLASSES, list(range(7))


def engine(guidance: Guidance, **choices: object) -> Engine:
    own = {"steps": 4, "batch_size": 3, "progress": False, "dtype": torch.float64}
    return Engine(tiny(net=TinyNet().double()), guidance=guidance, **{**own, **choices})


@pytest.mark.parametrize(
    "weight",
    [
        Constant(1.0),
        Constant(3.5),
        Interval(4.0, 0.3, 20.0),
        Linear(5.0),
        Damped(4.0, (0.01, 1.0, 10.0), (0.9, 0.5, 0.05), skip_below=0.2),
    ],
)
def test_without_reg_it_is_the_mean_scale_of_the_evaluations(weight: object) -> None:
    run = engine(Guidance(weight, rectify=None))
    found, weights = effective_scales(run, LABELS, SEEDS), weights_of(weight, run.table)
    wanted = torch.full((7,), 1 + sum(weights) / len(weights), dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=0)


@pytest.mark.parametrize("guidance", [Guidance(Constant(4.0), rectify="vjp"),
                                      Guidance(Constant(4.0), direction=APG())])  # fmt: skip
def test_it_is_the_projection_on_delta(guidance: Guidance) -> None:
    """Eq. of arXiv 2602.22570: what was added, along cond - ref, in units of cond - ref."""
    run = engine(guidance)
    ratios = []
    for step in run.steps(LABELS, SEEDS):
        x, labels = step.x, LABELS[step.rows]
        with torch.no_grad():
            cond = run.denoiser(x, step.t, labels)
            ref = run.denoiser(x, step.t, torch.full_like(labels, CLASSES))
        for k in range(len(x)):
            delta, moved = (cond - ref)[k].flatten(), (step.guided - ref)[k].flatten()
            along = torch.dot(moved, delta) / delta.norm() ** 2 * delta
            if step.rows.start == 3:
                ratios.append(float(along.norm() / delta.norm()))
    rows = len(run.table.rows)
    wanted = torch.tensor(ratios, dtype=torch.float64).reshape(rows, 3).mean(0)
    found = effective_scales(run, LABELS, SEEDS)
    torch.testing.assert_close(found[3:6], wanted, rtol=1e-6, atol=1e-9)
    assert (found - 4).abs().min() > 0.05  # neither of them is CFG


def test_where_delta_vanishes_nothing_is_said() -> None:
    """Class 0 and the null label are the same to this network above noise level 0.5."""
    net = Shy()
    with torch.no_grad():
        net.label.weight[0] = net.label.weight[CLASSES]
    run = Engine(tiny(net=net), scale=3.0, rectify=None, steps=3, progress=False)
    found = effective_scales(run, torch.tensor([0, 1]), [0, 1])
    assert found[0] == 1.0 and float(found[1]) == pytest.approx(3.0, rel=1e-3)
    first = next(iter(run.steps(torch.tensor([0, 1]), [0, 1])))
    assert scales_of(run, first, torch.tensor([0, 1])).isnan().tolist() == [True, True]


def test_it_is_a_function_of_the_seed_not_of_the_batch() -> None:
    guidance = Guidance(Constant(3.0), rectify="fd")
    one, other = (
        effective_scales(engine(guidance, batch_size=size), LABELS, SEEDS) for size in (2, 7)
    )
    torch.testing.assert_close(one, other, rtol=1e-6, atol=0)


def test_of_an_adapter_it_is_how_far_it_moves_in_the_units_of_the_model_without_it() -> None:
    denoiser = model()
    run = Engine(
        denoiser.with_adapter(adapter(denoiser)), scale=3.0, steps=3, solver="euler", progress=False
    )
    labels, parts = torch.tensor([0, 1, 0]), []
    for step in run.steps(labels, [0, 1, 2]):
        with torch.no_grad():
            cond = denoiser(step.x, step.t, labels).double()
            ref = denoiser(step.x, step.t, torch.full_like(labels, 2)).double()
        delta, moved = cond - ref, step.guided.double() - ref
        parts.append(((moved * delta).sum(1) / delta.square().sum(1)).abs())
    wanted = torch.stack(parts).mean(0)
    torch.testing.assert_close(effective_scales(run, labels, [0, 1, 2]), wanted)
    assert (wanted - 1).abs().max() > 0.1
    one = Engine(denoiser.with_adapter(adapter(denoiser)), scale=1.0, steps=3, progress=False)
    assert effective_scales(one, labels, [0, 1, 2]).tolist() == [1, 1, 1]
