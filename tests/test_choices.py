"""A call's choices, however they are written, give the samples that they mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from nets import CLASSES, SHAPE, TinyNet, tiny
from rerun import Rerun
from torch import Tensor

import reg_engine
from reg_engine import RECTIFIERS, Denoiser, Engine, schedules
from reg_engine.graphs import Graphs


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


class Tree(TinyNet):
    """Takes its label, a gain and an offset from a tree; the rest of it must arrive unchanged."""

    def forward(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        assert (cond["mode"], cond["count"], cond["added"]["none"]) == ("sum", 2, None)
        gain, (offset,) = cond["added"]["gain"], cond["offsets"]
        assert len(gain) == len(offset) == len(x)
        return super().forward(x, t, cond["label"]) * gain[:, None, None, None] + offset


GAIN, OFFSET = torch.tensor([1.0, 0.5, 2.0, 1.5]), 0.1 * torch.arange(64.0).reshape(4, *SHAPE)
TREE = {
    "label": [0, 1, 2, 1],
    "added": {"gain": GAIN, "none": None},
    "offsets": (OFFSET,),
    "mode": "sum",
    "count": 2,
}
NULL = {**TREE, "label": CLASSES, "added": {"gain": 1.0, "none": None}, "offsets": [OFFSET[:1]]}


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("rectify", [None, *RECTIFIERS, "auto"])
def test_a_tree_is_sliced_stacked_and_captured(rectify: str | None, captured: bool) -> None:
    """Against each sample alone, whose whole conditioning is bound to its network."""
    torch.manual_seed(0)
    model = Denoiser(Tree(), "edm", schedules.EDM(), SHAPE, NULL)
    choices = {"scale": 2.5, "rectify": rectify, "steps": 3, "progress": False}
    engine = Engine(model, batch_size=2, **choices)
    if captured:
        engine._graphs = Graphs(Rerun(), always=True)
    got = engine.sample(TREE)
    assert got.stats.capture.startswith("captured" if captured else "not captured")
    net = TinyNet()
    for k in range(4):

        def bound(x: Tensor, t: Tensor, label: Tensor, k: int = k) -> Tensor:
            free = (label == CLASSES)[:, None, None, None]
            gain, offset = torch.where(free, 1.0, GAIN[k]), torch.where(free, OFFSET[0], OFFSET[k])
            return net(x, t, label) * gain + offset

        alone = Denoiser(bound, "edm", schedules.EDM(), SHAPE, CLASSES)
        wanted = reg_engine.sample(alone, TREE["label"][k], seeds=[k], **choices)
        assert torch.allclose(got.samples[k], wanted.samples[0], rtol=1e-4, atol=1e-4)
