"""Layers with a bias, sums and differences."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from forward_cases import Moves, Rows, Table, check_all, example, unvisited
from torch import nn

from reg_engine.errors import EstimatorError
from reg_engine.forward import jvp


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


X, Y = Moves((2, 3, 4)), Moves((2, 3, 4))
IMAGE = Moves((2, 4, 6, 5))
TABLE: Table = {}

# axis 2 would be what a linear layer sums over
example(TABLE, "linear", X, noise(5, 4), noise(5), axis=(0, 1))
example(TABLE, "linear", X, noise(5, 4))
example(TABLE, "linear", Moves((2, 4)), weight=noise(5, 4), bias=noise(5))
for _c in (noise(5), noise(1, 5), Rows((2, 5))):
    example(TABLE, "addmm", _c, Moves((2, 4)), noise(4, 5), twin=False)
example(TABLE, "addmm", noise(5, 1), noise(5, 4), Moves((4, 2)), axis=1, beta=0.5, alpha=0.3)
example(TABLE, "addmm", Moves((2, 5)), Moves((2, 7)), noise(7, 5), fallback=True)
example(TABLE, "conv1d", X, noise(6, 3, 3), noise(6), 1, 1)
example(TABLE, "conv2d", IMAGE, noise(6, 2, 3, 3), noise(6), stride=2, padding=1, groups=2)
example(TABLE, "conv2d", IMAGE, noise(6, 4, 1, 1))
example(TABLE, "conv2d", IMAGE, noise(6, 4, 3, 3), noise(6), padding="same", dilation=2)
example(TABLE, "conv3d", Moves((2, 3, 4, 3, 3)), noise(6, 3, 3, 1, 1), noise(6))
example(TABLE, "conv_transpose1d", X, noise(3, 6, 3), noise(6))
example(TABLE, "conv_transpose2d", IMAGE, noise(4, 3, 2, 2), noise(3), stride=2)
example(TABLE, "conv_transpose3d", Moves((2, 3, 4, 3, 3)), noise(3, 2, 3, 1, 1), noise(2))
example(TABLE, "batch_norm", IMAGE, noise(4), noise(4) ** 2, homes=(F,))
example(TABLE, "batch_norm", X, noise(3), noise(3) ** 2, noise(3), noise(3), eps=0.1, homes=(F,))
example(TABLE, "batch_norm", Moves((2, 3)), noise(3), noise(3) ** 2, weight=noise(3), homes=(F,))

BOTH = "add sub subtract __add__ __sub__ __radd__ __rsub__ rsub"
example(TABLE, BOTH, X, Y, axis=(0, 1, 2))
example(TABLE, BOTH, X, Moves((2, 1, 4)), axis=(0, 2))
for _constant in (
    0.1,
    2,
    noise(4),
    noise(3, 1),
    noise(1, 1, 1),
    torch.tensor(0.1),
    Rows((2, 1, 1)),
):
    example(TABLE, BOTH, X, _constant)
example(TABLE, BOTH, X, noise(2, 3, 1), axis=2)
example(TABLE, BOTH, X, noise(2, 2, 1, 3, 4), twin=False)
example(TABLE, BOTH, Moves((2, 1, 4)), noise(3, 4), twin=False)
example(TABLE, BOTH, Moves((2, 1, 4)), Rows((2, 3, 1)), twin=False)
example(TABLE, BOTH, Moves((2, 1, 1)), Rows((2, 3, 4)), twin=False)
example(TABLE, "add sub subtract rsub", X, Y, alpha=0.3)
example(TABLE, "add sub subtract rsub", X, noise(4), alpha=0.3)
example(TABLE, "add sub subtract rsub", X, 0.7, alpha=0.3)
example(TABLE, "add sub subtract rsub", noise(3, 4), X, homes=(torch,))
example(TABLE, "add sub subtract rsub", noise(3, 4), X, alpha=0.3, homes=(torch,))
example(TABLE, "add sub subtract", Rows((2, 3, 4)), X, alpha=-2, twin=False)


@pytest.mark.parametrize("name", TABLE)
def test_tangents_are_those_of_forward_ad(name: str) -> None:
    check_all(TABLE, name)


def test_every_rule_has_an_example() -> None:
    assert unvisited(TABLE, "affine") == set()


def test_a_scalar_is_added_as_exactly_as_by_the_op() -> None:
    x = torch.randn(64, 3, dtype=torch.float64)
    for shifted in (lambda x: x + 0.1, lambda x: 0.1 - x, lambda x: x.sub(0.1, alpha=0.3)):
        assert torch.equal(jvp(shifted, x, torch.ones_like(x)).value, shifted(x))
    low = x.bfloat16()
    assert torch.equal(jvp(lambda x: x + 0.1, low, torch.ones_like(low)).value, low + 0.1)


def test_a_sum_has_the_dtype_of_the_op() -> None:
    x, constant = torch.randn(3, 4), torch.randn(4, dtype=torch.float64)
    for call in (lambda x: x + constant, lambda x: constant - x, lambda x: x.bfloat16() + x):
        value, tangent = jvp(call, x, torch.ones_like(x))
        assert value.dtype == tangent.dtype == call(x).dtype
        assert torch.equal(value, call(x))


LAYERS = {
    "addmm": lambda x: torch.addmm(torch.ones(4), x.t(), torch.ones(8, 4)),
    "weight of x": lambda x: F.linear(torch.ones(5, 4), x),
    "bias of x": lambda x: F.linear(torch.ones(4, 6), torch.ones(4, 6), x.sum(1)),
    "sum over the batch": lambda x: F.linear(x.t(), torch.ones(5, 4)),
    "no batch": lambda x: F.conv1d(x, torch.ones(1, 4, 1)),
    "filters of x": lambda x: F.conv1d(torch.ones(1, 4, 6), x[:, :, None]),
    "batch inside": lambda x: F.conv1d(x[:, None].transpose(0, 2), torch.ones(1, 1, 1)),
    "batch statistics": lambda x: F.batch_norm(x, None, None, training=True),
    "training": nn.BatchNorm1d(4),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_that_mix_rows_are_refused(name: str) -> None:
    with pytest.raises(EstimatorError, match="linear|addmm|conv1d|batch_norm"):
        jvp(LAYERS[name], torch.randn(4, 4), torch.randn(4, 4))
