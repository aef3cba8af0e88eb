"""Conditionings: rows, labels, dicts."""

from __future__ import annotations

import pytest
import torch

from reg_engine import InputError
from reg_engine.conditioning import as_cond, concat, expand, plain, size, take

CPU = torch.device("cpu")


def test_labels_are_repeated_checked_and_long() -> None:
    assert as_cond(2, 3, 5, 5, CPU).tolist() == [2, 2, 2]
    assert as_cond([0, 5], 2, 5, 5, CPU).dtype == torch.long  # the null label is allowed
    assert as_cond(torch.tensor([1], dtype=torch.uint8), 2, 5, None, CPU).tolist() == [1, 1]
    with pytest.raises(InputError, match=r"\[5\]"):
        as_cond([0, 5], 2, 5, None, CPU)


def test_dicts_are_sliced_stacked_and_expanded_key_by_key() -> None:
    cond = as_cond({"a": torch.arange(6).reshape(3, 2), "b": torch.ones(1)}, 3, None, None, CPU)
    assert size(cond) == 3
    part = take(cond, slice(1, 3))
    assert part["a"].tolist() == [[2, 3], [4, 5]] and part["b"].tolist() == [1, 1]
    assert concat([part, take(cond, slice(0, 1))])["a"].tolist() == [[2, 3], [4, 5], [0, 1]]
    null = expand({"a": torch.tensor([7, 8]), "b": 0.0}, part)
    assert null["a"].tolist() == [[7, 8], [7, 8]] and null["b"].tolist() == [0, 0]


def test_plain_can_be_recorded_whatever_made_it() -> None:
    with torch.inference_mode():
        made = {"a": torch.ones(2)}
        got = plain(made)["a"]
        assert not got.is_inference() and not plain(torch.ones(2)).is_inference()
    assert made["a"].is_inference()
    assert plain(None) is None, "a network without conditioning is called with None"
    (got * torch.ones(2, requires_grad=True)).sum().backward()


def test_null_that_does_not_fit_is_named() -> None:
    for null, like in (
        (None, torch.zeros(2)),
        ({"a": 1}, {"b": torch.zeros(2)}),
        (torch.zeros(3), torch.zeros(2, 4)),
    ):
        with pytest.raises(InputError, match="null_cond"):
            expand(null, like)
