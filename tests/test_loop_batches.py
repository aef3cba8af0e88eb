"""Row by row: the steps of a call are its rows, by formula, and change nothing in it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nets import SHAPE, TinyNet, tiny
from torch import nn

from reg_engine import RECTIFIERS, SOLVERS, Engine, InputError, sample
from reg_engine.loop.stats import Stats
from reg_engine.loop.step import Step

LABELS, SEEDS = torch.tensor([0, 1, 2]), [4, 5, 6]


def engine(**choices: Any) -> Engine:
    return Engine(tiny(), **{"scale": 3.0, "steps": 3, "progress": False, **choices})


@pytest.mark.parametrize("rectify", [None, *RECTIFIERS])
@pytest.mark.parametrize("solver", ["heun", "euler_ancestral", "dpmpp_2m"])
def test_the_steps_end_in_the_samples(solver: str, rectify: str | None) -> None:
    one = engine(solver=solver, rectify=rectify)
    whole = one.sample(LABELS, SEEDS)
    stats = Stats()
    steps = list(one.steps(LABELS, SEEDS, stats=stats))
    assert torch.equal(steps[-1].x_next, whole.samples)
    rows = one.table.rows
    assert [(s.index, s.t, s.s) for s in steps] == [(i, r.t, r.s) for i, r in enumerate(rows)]
    assert all(torch.equal(a.x_next, b.x) for a, b in zip(steps, steps[1:], strict=False))
    assert (stats.nfe, stats.modes) == (whole.stats.nfe, whole.stats.modes)
    assert stats.samples == 3 and stats.seconds > 0


def test_batches_are_told_apart() -> None:
    steps = list(engine(batch_size=2, solver="euler").steps(LABELS, SEEDS))
    assert [(s.rows.start, s.rows.stop, s.index) for s in steps] == [
        (0, 2, 0), (0, 2, 1), (0, 2, 2), (2, 3, 0), (2, 3, 1), (2, 3, 2),
    ]  # fmt: skip
    last = torch.cat([s.x_next for s in steps if s.index == 2])
    assert torch.equal(last, engine(batch_size=2, solver="euler").sample(LABELS, SEEDS).samples)


def test_between_two_steps_the_network_is_the_callers() -> None:
    net = TinyNet().train()
    one = Engine(tiny(net=net), scale=3.0, steps=2, progress=False)
    for step in one.steps(LABELS, SEEDS):
        assert net.training and all(p.requires_grad for p in net.parameters())
        assert not torch.is_inference_mode_enabled()
        x = step.x.requires_grad_()
        (gradient,) = torch.autograd.grad((x * step.guided).sum(), x)
        assert torch.equal(gradient, step.guided)
        step.x_next.zero_()  # the caller's own
    assert torch.isfinite(step.x_next).all()


def test_steps_may_be_left_unfinished() -> None:
    one = engine()
    assert next(one.steps(LABELS, SEEDS)).index == 0
    assert torch.equal(one.sample(LABELS, SEEDS).samples, engine().sample(LABELS, SEEDS).samples)


def test_a_callback_sees_every_row_and_changes_nothing() -> None:
    seen: list[Step] = []

    def callback(step: Step) -> None:
        seen.append(step)
        nn.Linear(2, 2)(torch.ones(1, 2)).sum().backward()  # outside inference mode

    out = sample(tiny(), LABELS, seeds=SEEDS, scale=3.0, steps=3, progress=False, callback=callback)
    assert torch.equal(out.samples, engine().sample(LABELS, SEEDS).samples)
    assert [step.index for step in seen] == [0, 1, 2, 3, 4]
    assert seen[0].x.shape == (3, *SHAPE)
    assert out.stats.capture == "not captured: a callback looks at every row"


def test_what_a_callback_raises_ends_the_call() -> None:
    class Enough(Exception):
        pass

    def callback(step: Step) -> None:
        if step.index == 1:
            raise Enough

    one = engine()
    with pytest.raises(Enough):
        one.sample(LABELS, SEEDS, callback=callback)
    assert torch.equal(one.sample(LABELS, SEEDS).samples, engine().sample(LABELS, SEEDS).samples)


@pytest.mark.parametrize("callback", [3, Step])
def test_a_callback_is_a_function(callback: Any) -> None:
    with pytest.raises(InputError, match="callback"):
        engine().sample(LABELS, SEEDS, callback=callback)


def test_every_solver_gives_a_step_for_each_row() -> None:
    for name in SOLVERS:
        if not name.startswith("flow"):
            one = engine(solver=name, rectify=None, steps=4)
            assert len(list(one.steps(LABELS, SEEDS))) == len(one.table.rows), name
