"""What a user's parts may return, and how a reference is told of whom its conditioning is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nets import tiny

from reg_engine import InputError, Unconditional
from reg_engine.networks.answers import as_state, conditioned

CPU = torch.device("cpu")


def test_a_state_is_a_tensor_of_the_shape_that_was_asked() -> None:
    like = torch.zeros(2, 3)
    value = torch.ones(2, 3)
    assert as_state("direction", value, like) is value
    for bad, got in ((torch.ones(3, 2), r"\(3, 2\)"), (None, "NoneType"), (1.0, "float")):
        with pytest.raises(InputError, match=rf"^direction: returned {got} for states \(2, 3\)"):
            as_state("direction", bad, like)


def test_a_reference_that_draws_is_told_the_seeds() -> None:
    asked: list[Any] = []

    class Draws(Unconditional):
        def drawn(self, *call: Any) -> torch.Tensor:
            asked.append(call)
            return torch.tensor(call[2])

    model, cond = tiny(), torch.tensor([0, 1])
    assert conditioned(Draws(), model, cond, [7, 5], CPU).tolist() == [7, 5]
    assert asked == [(model, cond, [7, 5], CPU)]
    found = conditioned(Unconditional(), model, cond, [7, 5], CPU)
    assert found.tolist() == [3, 3], "the null label, for as many"
