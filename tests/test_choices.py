"""A call's choices, however they are written, give the samples that they mean."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
import pytest
import torch
from nets import CLASSES, SHAPE, TinyNet, tiny
from rerun import Rerun
from torch import Tensor

import reg_engine
from reg_engine import (
    RECTIFIERS,
    BadModel,
    Denoiser,
    Engine,
    Guidance,
    InputError,
    Interval,
    Plan,
    Unconditional,
    schedules,
)
from reg_engine.guidance.adjustments import Rescale
from reg_engine.guidance.directions import APG
from reg_engine.loop.graphs import Graphs
from reg_engine.rectifiers import looks


def test_sample_names_every_choice_of_an_engine() -> None:
    """Real keywords, so that editors and type checkers know them; unknown ones are an error."""
    engine, call = (inspect.signature(f).parameters for f in (Engine.__init__, reg_engine.sample))
    choices = [p for p in engine.values() if p.kind is p.KEYWORD_ONLY]
    assert list(call)[:5] == ["model", "cond", "seeds", "noise", "callback"]
    assert list(call)[-1] == "unknown"
    # Names, defaults and annotations, in one order.
    assert [call[name] for name in list(call)[5:-1]] == choices
    assert call["unknown"].kind is inspect.Parameter.VAR_KEYWORD
    assert call["unknown"].annotation == "NoReturn"  # a type checker accepts none
    for unknown in ({"steps": 3, "scales": 2.0}, {"step": 3}):
        with pytest.raises(InputError, match=r"is not an argument of sample. Known: .*steps"):
            reg_engine.sample(tiny(), [0], **unknown)
    with pytest.raises(InputError, match="^scales: is not an argument of calibrate"):
        Plan.calibrate(tiny(), [0], scales=2.0)


def test_sample_hands_every_choice_on(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = inspect.signature(Engine.__init__).parameters.values()
    given: dict[str, Any] = {p.name: object() for p in parameters if p.kind is p.KEYWORD_ONLY}
    met: dict[str, Any] = {}

    def recorded(self: Engine, model: object, **choices: Any) -> None:
        met.update(choices)
        raise StopIteration

    monkeypatch.setattr(Engine, "__init__", recorded)
    with pytest.raises(StopIteration):
        reg_engine.sample(None, None, **given)
    assert met == given and len(met) > 15


def test_results_are_shown_on_one_short_line() -> None:
    out = reg_engine.sample(tiny(), [0, 1], scale=2.0, rectify="vjp", steps=2, progress=False)
    stats = r"Stats\(heun, vjp: 2 samples, 6 nfe \+ 3 backward, \d+\.\d\d s\)"
    assert re.fullmatch(stats, repr(out.stats))
    assert re.fullmatch(rf"Output\(samples \(2, 1, 4, 4\) float32 on cpu, {stats}\)", repr(out))
    assert repr(Plan.interval(0.5, 10)) == "Plan(cfg < 0.5 <= reg < 10 <= cond)"
    assert repr(Plan.full()) == "Plan(reg)"
    plain = "Guidance(Constant(scale=3.0), Unconditional(null_cond=None), rectify='auto')"
    assert repr(Guidance(3)) == plain
    long = Guidance(Interval(3, 0, 80), BadModel(tiny()), None, APG(), Rescale(0.5))
    assert len(repr(long)) < 260 and "\n" not in repr(long) and "APG" in repr(long)
    big = Guidance(2.0, Unconditional(torch.zeros(999, 999)))
    assert len(repr(big)) < 150


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
    off = (got.samples - wanted.samples).norm() / wanted.samples.norm()  # CFG is fused
    assert off < 3e-5 and got.stats.estimator == "plain"


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


@pytest.mark.usefixtures("alike")
@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("rectify", [None, *RECTIFIERS, "auto"])
def test_a_tree_is_sliced_stacked_and_captured(rectify: str | None, captured: bool) -> None:
    """Against each sample alone, whose whole conditioning is bound to its network."""
    torch.manual_seed(0)
    model = Denoiser(Tree(), "edm", schedules.EDM(), SHAPE, NULL)
    choices = {"scale": 2.5, "rectify": rectify, "steps": 3, "progress": False}
    engine = Engine(model, batch_size=2, **choices)
    if captured:
        engine._graphs = Graphs(Rerun(), always=not looks(rectify))
        engine.sample(TREE)  # the first of its kind is not captured where graphs may fail
    got = engine.sample(TREE)
    recorded = captured and not looks(rectify)
    assert got.stats.capture.startswith("captured" if recorded else "not captured")
    net = TinyNet()
    for k in range(4):

        def bound(x: Tensor, t: Tensor, label: Tensor, k: int = k) -> Tensor:
            free = (label == CLASSES)[:, None, None, None]
            gain, offset = torch.where(free, 1.0, GAIN[k]), torch.where(free, OFFSET[0], OFFSET[k])
            return net(x, t, label) * gain + offset

        alone = Denoiser(bound, "edm", schedules.EDM(), SHAPE, CLASSES)
        wanted = reg_engine.sample(alone, TREE["label"][k], seeds=[k], **choices)
        assert torch.allclose(got.samples[k], wanted.samples[0], rtol=1e-4, atol=1e-4)
