"""Digests: the same content gives the same one, whoever holds it; the least change another."""

from __future__ import annotations

import copy
import functools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from reg_engine.storage.digest import digest


@dataclass
class Point:
    x: float
    y: object = None


class Slotted:
    __slots__ = ("a",)

    def __init__(self, a: object) -> None:
        self.a = a


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def scaled(by: float):
    return lambda x: by * x


PAIRS = [
    (3.0, math.nextafter(3.0, 4)),
    (0.0, -0.0),
    (1, 1.0),
    (1, True),
    (None, "None"),
    ("a", b"a"),
    ([1, [2]], [1, 2]),
    ([1, 2], (1, 2)),
    (["ab", "c"], ["a", "bc"]),
    ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
    (torch.arange(6), torch.arange(6).reshape(2, 3)),
    (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
    (torch.arange(5000), torch.arange(5000).index_fill(0, torch.tensor([2500]), 0)),
    (np.zeros(2), np.zeros(2, dtype=np.int64)),
    (Point(1.0, [1]), Point(1.0, [2])),
    (Slotted(1), Slotted(2)),
    (scaled(2.0), scaled(3.0)),
    (functools.partial(max, 1), functools.partial(max, 2)),
    (Point(1.0).__eq__, Point(2.0).__eq__),
    ({1, 2}, {1, 3}),
    (torch.float32, torch.float64),
]


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=[repr(a)[:20] for a, _ in PAIRS])
def test_the_least_change_counts_and_a_copy_does_not(one: object, other: object) -> None:
    assert digest(one) != digest(other)
    assert digest(one) == digest(copy.deepcopy(one))


def test_an_order_that_means_nothing_does_not_count() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({1, 2, 3}) == digest({3, 2, 1})
    assert digest(torch.arange(6).reshape(2, 3).T) == digest(
        torch.arange(6).reshape(2, 3).T.contiguous()
    )
    assert digest([1, 2]) != digest([2, 1])


def test_a_network_is_its_weights_buffers_and_attributes_not_its_mode() -> None:
    one = net()
    assert digest(one) == digest(net()) == digest(one.eval())
    for change in (
        lambda n: n[0].weight.data[1, 1].add_(1e-7),
        lambda n: n[1].running_mean.add_(1e-7),
        lambda n: setattr(n[1], "eps", 1e-6),
    ):
        other = net()
        change(other)
        assert digest(other) != digest(one)
    half = net().to(torch.bfloat16)
    assert digest(half) == digest(net().to(torch.bfloat16)) != digest(one)


def test_what_holds_itself_ends() -> None:
    knot: list[object] = [1]
    knot.append(knot)
    assert digest(knot) != digest([1, [1]])


def test_what_cannot_be_told_apart_is_refused() -> None:
    with pytest.raises(TypeError, match="Generator has no digest"):
        digest([torch.Generator()])
