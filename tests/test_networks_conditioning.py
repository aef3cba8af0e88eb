"""Conditionings: labels, rows, trees of tensors, and what is the same for all samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from reg_engine import InputError
from reg_engine.networks.conditioning import (
    as_cond,
    concat,
    expand,
    integral,
    plain,
    signature,
    size,
    take,
    write,
)

CPU = torch.device("cpu")


def tree(rows: int = 3, fill: float = 0.0) -> dict[str, Any]:
    """Everything that a tree may hold, as `as_cond` returns it."""
    start = torch.arange(2.0 * rows).reshape(rows, 2) + fill
    return {
        "text": start,
        "added": {"size": start[:, 0].long(), "none": None, "deep": {"x": start + 1}},
        "residuals": (start + 2, start[:, :1]),
        "scale": 0.5,
        "steps": 3,
        "mode": "sum",
        "flag": True,
        "empty": {},
    }


def test_labels_are_repeated_checked_and_long() -> None:
    assert as_cond(2, 3, 5, 5, CPU).tolist() == [2, 2, 2]
    assert as_cond([0, 5], 2, 5, 5, CPU).dtype == torch.long  # the null label is allowed
    assert as_cond(torch.tensor([1], dtype=torch.uint8), 2, 5, None, CPU).tolist() == [1, 1]
    with pytest.raises(InputError, match=r"\[5\]"):
        as_cond([0, 5], 2, 5, None, CPU)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32, np.uint64, np.int16, np.int64])
def test_labels_of_every_integer_kind(kind: Any) -> None:
    for labels in (np.array([1, 4], kind), np.array([[1], [4]], kind), [kind(1), kind(4)]):
        got = as_cond(labels, 2, 5, None, CPU)
        assert got.dtype == torch.long and got.tolist() == [1, 4]
    assert as_cond(kind(3), 2, 5, None, CPU).tolist() == [3, 3]
    assert as_cond(np.array(3, kind), 2, 5, None, CPU).tolist() == [3, 3]
    with pytest.raises(InputError, match="out of range"):
        as_cond(np.array([1, 5], kind), 2, 5, None, CPU)


def test_only_integers_are_labels() -> None:
    kinds = {torch.uint16: True, torch.int32: True, torch.bool: False, torch.float16: False}
    for kind, whole in {**kinds, torch.complex64: False}.items():
        assert integral(torch.zeros(1, dtype=kind)) == whole
    for bad in (True, 1.5, [True, False], np.array([0.0])):
        with pytest.raises(InputError, match="^cond: labels have dtype"):
            as_cond(bad, 2, 5, None, CPU)


def test_a_network_without_conditioning() -> None:
    assert as_cond(None, 3, None, None, CPU) is None and size(None) == 1
    assert take(None, slice(0, 1)) is None and concat([None, None]) is None
    with pytest.raises(InputError, match="^cond: is None. This model takes labels"):
        as_cond(None, 3, 5, 5, CPU)
    with pytest.raises(InputError, match="^cond: is None, so there is nothing"):
        expand(5, None)


def test_a_tree_keeps_its_form() -> None:
    """What has rows is repeated, everything else travels as it is."""
    given = {
        "text": torch.ones(1, 2),
        "size": np.array([1, 2], np.uint16),
        "added": {"guidance": torch.tensor(3.5), "none": None, "pairs": [[1, 2], [3, 4]]},
        "residuals": [torch.ones(2, 4), np.zeros((1, 3))],
        "mode": "sum",
        "count": 14,
        "flag": False,
    }
    got = as_cond(given, 2, None, None, CPU)
    assert got["text"].shape == (2, 2) and got["size"].tolist() == [1, 2]
    assert got["added"]["guidance"].tolist() == [3.5, 3.5] and got["added"]["none"] is None
    assert got["added"]["pairs"].tolist() == [[1, 2], [3, 4]]
    assert isinstance(got["residuals"], tuple)
    assert [tuple(v.shape) for v in got["residuals"]] == [(2, 4), (2, 3)]
    assert (got["mode"], got["count"], got["flag"]) == ("sum", 14, False)
    assert type(got["count"]) is int and got["flag"] is False
    assert size(as_cond(given, None, None, None, CPU)) == 2


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        ({"a": {"b": ["a cat", "a dog"]}}, "cond['a']['b']"),
        ({"a": [torch.ones(2, 2), torch.ones(3, 2)]}, "cond['a'][1]"),
        ({"a": {"b": torch.ones(3, 1)}}, "cond['a']['b']"),
        ({"a": object()}, "cond['a']"),
        ({"a": [1, None]}, "cond['a']"),
        ({"a": {3: torch.ones(2)}}, "cond['a']"),
        ({"a": torch.ones(2, device="meta")}, "cond['a']"),
        ({}, "cond"),
    ],
)
def test_what_cannot_travel_is_named_by_its_place(bad: Any, name: str) -> None:
    with pytest.raises(InputError) as caught:
        as_cond(bad, 2, None, None, CPU)
    assert caught.value.argument == name and "\n" not in str(caught.value)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_trees_are_sliced_stacked_copied_and_written() -> None:
    whole = tree()
    assert size(whole) == 3
    parts = [take(whole, slice(0, 1)), take(whole, slice(1, 3))]
    assert parts[1]["added"]["deep"]["x"].tolist() == [[3, 4], [5, 6]] and parts[1]["mode"] == "sum"
    assert same(concat(parts), whole)
    copy = plain(whole)
    assert same(copy, whole) and copy["residuals"][0] is not whole["residuals"][0]
    write(copy, tree(fill=7.0))
    assert same(copy, tree(fill=7.0)) and not same(copy, whole)
    assert same(plain((whole, None)), (whole, None))


def test_a_signature_is_what_must_agree() -> None:
    base = signature(tree())
    assert base == signature(tree(fill=9.0)) and hash(base) == hash(signature(tree()))
    for change in (
        {"text": torch.zeros(4, 2)},
        {"text": torch.zeros(3, 2).half()},
        {"scale": 0.25},
        {"steps": 3.0},
        {"flag": 1},
        {"mode": None},
        {"empty": ()},
        {"new": None},
        {"residuals": tree()["residuals"][:1]},
        {"added": {**tree()["added"], "none": "x"}},
    ):
        assert signature({**tree(), **change}) != base, change
    reordered = dict(reversed(tree().items()))
    assert signature(reordered) == base
    copy = plain(tree())
    write(copy, dict(reversed(tree(fill=1.0).items())))
    assert same(copy, tree(fill=1.0))


def test_a_null_is_expanded_along_the_tree() -> None:
    like = tree()
    null = {
        **like,
        "text": torch.tensor([7.0, 8.0]),
        "added": {"size": 9, "none": None, "deep": {"x": like["text"] * 2}},
        "residuals": [0.5, torch.tensor([[1.0]])],
    }
    got = expand(null, like)
    assert got["text"].tolist() == [[7, 8]] * 3
    assert got["added"]["size"].tolist() == [9, 9, 9] and got["added"]["size"].dtype == torch.long
    assert torch.equal(got["added"]["deep"]["x"], like["text"] * 2)  # one row a sample
    assert got["residuals"][0].tolist() == [[0.5, 0.5]] * 3
    assert got["residuals"][1].tolist() == [[1.0]] * 3 and signature(got) == signature(like)


def test_plain_can_be_recorded_whatever_made_it() -> None:
    with torch.inference_mode():
        made = {"a": torch.ones(2)}
        got = plain(made)["a"]
        assert not got.is_inference() and not plain(torch.ones(2)).is_inference()
    assert made["a"].is_inference()
    assert plain(None) is None, "a network without conditioning is called with None"
    (got * torch.ones(2, requires_grad=True)).sum().backward()


@pytest.mark.parametrize(
    ("null", "like", "name"),
    [
        (None, torch.zeros(2), "null_cond"),
        ({"a": 1}, {"b": torch.zeros(2)}, "null_cond"),
        ({"a": 1, "b": 1}, {"b": torch.zeros(2)}, "null_cond"),
        (3, {"b": torch.zeros(2)}, "null_cond"),
        (torch.zeros(3), torch.zeros(2, 4), "null_cond"),
        (torch.zeros(3, 4), torch.zeros(2, 4), "null_cond"),
        ("x", torch.zeros(2), "null_cond"),
        (True, torch.zeros(2).long(), "null_cond"),
        (0.5, torch.zeros(2).long(), "null_cond"),
        (torch.tensor([0.5, 0.5]), torch.zeros(2).long(), "null_cond"),
        (10**400, torch.zeros(2), "null_cond"),
        ({"a": {"b": None}}, {"a": {"b": torch.zeros(2)}}, "null_cond['a']['b']"),
        ({"a": 2.0}, {"a": 2}, "null_cond['a']"),
        ({"a": "y"}, {"a": "x"}, "null_cond['a']"),
        ({"a": torch.zeros(2)}, {"a": None}, "null_cond['a']"),
        ({"a": (1,)}, {"a": (torch.zeros(2), torch.zeros(2))}, "null_cond['a']"),
        ({"a": 1}, torch.zeros(2), "cond"),
    ],
)
def test_null_that_does_not_fit_is_named(null: Any, like: Any, name: str) -> None:
    with pytest.raises(InputError) as caught:
        expand(null, like)
    assert caught.value.argument == name
