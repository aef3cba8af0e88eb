"""A call's choices, however they are written, give the samples that they mean."""

from __future__ import annotations

import numpy as np
import torch
from nets import tiny

import reg_engine


def test_steps_follow_the_times() -> None:
    times = [80.0, 9.0, 1.0, 0.0]
    choices = {"solver": "euler", "progress": False, "solver_options": {"times": times}}
    got = reg_engine.sample(tiny(), [0, 1], **choices)
    assert torch.equal(got.samples, reg_engine.sample(tiny(), [0, 1], steps=3, **choices).samples)
    assert len(reg_engine.Engine(tiny(), **choices).table.rows) == 3
    assert len(reg_engine.Engine(tiny(), solver="euler").table.rows) == 32


def test_numbers_of_numpy_and_torch_serve_as_plain_ones() -> None:
    choices = {"solver": "ddim", "rectify": "fd", "progress": False}
    plain = reg_engine.sample(
        tiny(), [0, 1], scale=3.0, steps=4, batch_size=1, solver_options={"eta": 0.5}, **choices
    )
    other = reg_engine.sample(
        tiny(),
        [np.int16(0), torch.tensor(1)],
        seeds=torch.arange(2),
        scale=torch.tensor(3),
        steps=np.uint8(4),
        batch_size=torch.tensor(1),
        solver_options={"eta": np.float32(0.5)},
        **choices,
    )
    assert torch.equal(plain.samples, other.samples)


def test_a_function_serves_as_rectifier() -> None:
    def plain(point, direction):  # type: ignore[no-untyped-def]
        ref, cond = point.stack(point.x)
        delta = direction(point, cond, ref)
        return cond, delta, delta

    choices = {"scale": 3.0, "steps": 3, "progress": False}
    got = reg_engine.sample(tiny(), [0, 1], rectify=plain, **choices)
    wanted = reg_engine.sample(tiny(), [0, 1], rectify=None, **choices)
    assert torch.equal(got.samples, wanted.samples) and got.stats.estimator == "plain"
