"""The compiled `probe` against its twin in plain torch."""

from __future__ import annotations

import itertools

import pytest
import torch
from csrc_cases import LARGE, device, on
from kernel_cases import (
    BF16,
    F16,
    F32,
    F64,
    FLOATS,
    LAYOUTS,
    ROW,
    ROWS,
    SHAPE,
    SHAPES,
    bits,
    check,
    nan,
    rand,
)
from torch import Tensor

from reg_engine.ops import extension, formulas
from reg_engine.ops.coefficients import COLUMNS, FIRST_B

pytestmark = pytest.mark.usefixtures(device.__name__)


def run(
    x: Tensor, direction: Tensor, length: Tensor, table: Tensor, copies: int, dtype: torch.dtype
) -> Tensor:
    out = nan(((copies + 1) * x.shape[0], *x.shape[1:]), dtype)
    step = on(x.device.type, ROW)
    extension.op("probe")(x, direction, length, table, step, copies, out)
    return out


def verify(
    x: Tensor,
    direction: Tensor,
    copies: int = 2,
    dtype: torch.dtype | None = None,
    length: Tensor | None = None,
) -> None:
    length = rand(x.shape[:1], x.dtype) if length is None else length
    table = rand((ROWS, FIRST_B + 1), x.dtype)
    out = run(x, direction, length, table, copies, dtype or x.dtype)
    given = (x, direction, length, table)
    step = on(x.device.type, ROW)
    twin = formulas.probe(*given, step, copies, dtype)
    exact = formulas.probe(*(t.double() for t in given), step, copies)
    check(out, twin, exact)


@pytest.mark.parametrize("copies", [0, 1, 2, 3])
@pytest.mark.parametrize("shape", [*SHAPES, (7,)], ids=str)
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_shapes_and_copies(dtype: torch.dtype, shape: tuple, copies: int) -> None:
    verify(rand(shape, dtype), rand(shape, dtype), copies)


@pytest.mark.parametrize("dtypes", [*itertools.product((F32, F64), FLOATS, FLOATS)], ids=str)
def test_each_tensor_has_its_own_dtype(dtypes: tuple[torch.dtype, ...]) -> None:
    verify(rand(SHAPE, dtypes[0]), rand(SHAPE, dtypes[1]), 2, dtypes[2])


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("place", ["x", "direction", "both"])
def test_inputs_lie_differently(place: str, name: str) -> None:
    x = (rand if place == "direction" else LAYOUTS[name])(SHAPE, F32)
    verify(x, (rand if place == "x" else LAYOUTS[name])(SHAPE, F16), dtype=BF16)


def test_every_bit_is_that_of_plain_torch() -> None:
    x, direction, length = rand(LARGE), rand(LARGE, F16), rand(LARGE[:1])
    table = rand((ROWS, FIRST_B + 1))
    out = run(x, direction, length, table, 2, BF16)
    step = on(x.device.type, ROW)
    assert torch.equal(out, formulas.probe(x, direction, length, table, step, 2, BF16))


def test_lengths_may_be_a_view() -> None:
    x, direction, lengths = rand(SHAPE), rand(SHAPE), rand((SHAPE[0], 2))
    verify(x, direction, length=lengths[:, 1])
    verify(x, direction, length=lengths[:1, 1].expand(SHAPE[0]))


@pytest.mark.parametrize("dtype", [F16, BF16], ids=str)
@pytest.mark.parametrize("state", [F32, F64], ids=str)
def test_results_are_rounded_as_torch_does(state: torch.dtype, dtype: torch.dtype) -> None:
    """Over all magnitudes, subnormal numbers and overflow included."""
    table = torch.zeros_like(rand((ROWS, FIRST_B + 1), state))
    table[ROW, COLUMNS.index("c_in")] = 1
    x = rand(LARGE, state) * torch.exp2(torch.randint_like(rand(LARGE, state), -30, 20))
    length = torch.zeros_like(rand(LARGE[:1], state))
    out = run(x, x, length, table, 1, dtype)
    assert torch.equal(bits(out), bits(torch.cat([x, x]).to(dtype)))
    assert out.isinf().any() == (dtype is F16)
