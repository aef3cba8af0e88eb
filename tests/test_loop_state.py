"""Memory between rows, and the state a batch starts from."""

from __future__ import annotations

import math

import pytest
import torch
from nets import tiny

from reg_engine import Engine
from reg_engine.loop.state import Memory, State
from reg_engine.ops.coefficients import COLUMNS


def test_memory_that_moves_keeps_what_it_is_given() -> None:
    memory = Memory()
    value = torch.ones(2)
    memory["delta"] = value
    assert memory["delta"] is value and dict(memory) == {"delta": value} and len(memory) == 1
    del memory["delta"]
    assert memory.get("delta") is None and not memory


def test_fixed_memory_keeps_its_places() -> None:
    memory = Memory(fixed=True)
    memory["delta"] = torch.ones(2)
    place = memory["delta"]
    memory["delta"] = torch.full((2,), 3.0)
    assert memory["delta"] is place and place.tolist() == [3.0, 3.0]
    memory.filled = frozenset()
    assert memory.get("delta") is None and memory.places() == [place]


def test_memory_knows_who_asked_first() -> None:
    memory = Memory()
    assert memory.get("apg") is None
    memory["apg"] = torch.zeros(1)
    memory.get("apg")
    memory["delta"] = torch.zeros(1)
    memory.get("delta")
    assert memory.asked == {"apg": False, "delta": True}
    with pytest.raises(KeyError):
        memory["momentum"]


@pytest.mark.parametrize(("solver", "slots"), [("heun", 2), ("euler", None), ("dpmpp_2m", 2)])
def test_a_new_state_holds_the_engines_numbers(solver: str, slots: int | None) -> None:
    model = tiny()
    engine = Engine(model, scale=1.5, rectify=None, solver=solver, steps=4)
    x = torch.zeros(3, *model.sample_shape)
    state = State.new(x, engine.table, engine.coefficients)
    assert state.x is x and len(state.coefficients.w) == len(engine.table.rows)
    places = [model.at(row.t) for row in engine.table.rows]
    fields = {"c_in": 0, "skip": 1, "out": 2, "time": 3}
    for name, index in fields.items():
        wanted = torch.tensor([place[index] for place in places])
        assert torch.equal(state.coefficients.own[:, COLUMNS.index(name)], wanted)
        if name in ("c_in", "time"):
            assert torch.equal(state.coefficients.estimates[:, COLUMNS.index(name)], wanted)
    for name, number in {"skip": 0.0, "out": 1.0, "w": 0.5, "limit": math.inf}.items():
        assert bool((state.coefficients.estimates[:, COLUMNS.index(name)] == number).all())
    assert state.history is None if slots is None else state.history.shape == (slots, *x.shape)
