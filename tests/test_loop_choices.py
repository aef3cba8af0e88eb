"""What a call is told is one value that nothing changes."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from nets import tiny

from reg_engine import BadModel, Constant, Engine, Guidance, Plan


def test_everything_is_resolved_when_the_engine_is_made() -> None:
    other = tiny()
    guidance = Guidance(3.0, BadModel(other), rectify=None)
    engine = Engine(tiny(), guidance=guidance, solver="euler", steps=4, memory_budget=5)
    told = engine.choices
    assert told.guidance is guidance and told.guidance.weight == Constant(3.0)
    assert (told.plan, told.weights) == (Plan.full(), (2.0,) * 4)
    assert (told.table.solver, told.device) == ("euler", torch.device("cpu"))
    assert (told.dtype, told.batch_size, told.memory_budget) == (torch.float32, None, 5)
    assert told.check and told.backend in ("csrc", "reference")
    assert told.modules == (*told.denoiser.modules, *other.modules)
    with pytest.raises(FrozenInstanceError):
        told.plan = Plan.full()  # type: ignore[misc]


def test_other_rows_are_another_value() -> None:
    engine = Engine(tiny(), scale=3.0, rectify=None, solver="euler", steps=4)
    other = Engine(tiny(), scale=2.0, rectify=None, solver="ddim", steps=2)
    moved = engine.on(table=other.table, weights=(1.0, 0.0))
    wanted = replace(engine.choices, table=other.table, weights=(1.0, 0.0))
    assert moved.choices == wanted and engine.choices.weights == (2.0,) * 4
