"""The compiled `combine` against its twin, and the conversions of 16 bits, exhaustively."""

from __future__ import annotations

import itertools

import pytest
import torch
from csrc_cases import LARGE, device
from kernel_cases import (
    BF16,
    F16,
    F32,
    FLOATS,
    LAYOUTS,
    SHAPE,
    SHAPES,
    VARIANTS,
    WRITABLE,
    Make,
    bits,
    check,
    doubled,
    nan,
    poisoned,
    rand,
)
from torch import Tensor

from reg_engine.ops import extension, formulas

pytestmark = pytest.mark.usefixtures(device.__name__)


def verify(
    cond: Tensor,
    ref: Tensor | None = None,
    term: Tensor | None = None,
    w: float = 1.7,
    channels: int = -1,
    make_out: Make = rand,
) -> Tensor:
    out = poisoned(make_out, tuple(cond.shape), cond.dtype)
    extension.op("combine")(cond, ref, term, w, channels, out)
    twin = formulas.combine(cond, ref, term, w, channels)
    check(out, twin, formulas.combine(*doubled(cond, ref, term), w, channels))
    return out


@pytest.mark.parametrize("given", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("shape", [*SHAPES, (7,)], ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_directions_and_shapes(dtype: torch.dtype, shape: tuple, given: tuple) -> None:
    ref, term = (rand(shape, dtype) if there else None for there in given)
    for channels in (-1, 0, 2) if len(shape) > 1 else (-1,):
        verify(rand(shape, dtype), ref, term, channels=channels)


@pytest.mark.parametrize("dtypes", [*itertools.product(FLOATS, repeat=3)], ids=str)
def test_each_tensor_has_its_own_dtype(dtypes: tuple[torch.dtype, ...]) -> None:
    verify(*(rand(SHAPE, dtype) for dtype in dtypes))


@pytest.mark.parametrize("channels", [-1, 2])
@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_input_lies_differently(place: int, name: str, channels: int) -> None:
    tensors = [rand(SHAPE, dtype) for dtype in (F32, F16, BF16)]
    tensors[place] = LAYOUTS[name](SHAPE, tensors[place].dtype)
    verify(*tensors, channels=channels)


@pytest.mark.parametrize("channels", [-1, 2])
@pytest.mark.parametrize("name", WRITABLE)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_outputs_and_all_tensors_lie_differently(
    dtype: torch.dtype, name: str, channels: int
) -> None:
    make = WRITABLE[name]
    verify(*(rand(SHAPE, dtype) for _ in range(3)), channels=channels, make_out=make)
    verify(*(make(SHAPE, dtype) for _ in range(3)), channels=channels, make_out=make)


@pytest.mark.parametrize("name", WRITABLE)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_neutral_weight_returns_cond_bitwise(dtype: torch.dtype, name: str) -> None:
    """NaN, Inf and -0 included, and nothing else is looked at."""
    cond = LAYOUTS[name](SHAPE, dtype)
    for place, value in enumerate((torch.nan, torch.inf, -torch.inf, -0.0)):
        cond[0, 0, 0, place] = value
    for w, ref, term in ((0.0, nan(SHAPE), nan(SHAPE)), (2.0, None, None)):
        out = nan(SHAPE, dtype)
        extension.op("combine")(cond, ref, term, w, -1, out)
        assert torch.equal(bits(out), bits(cond))


def test_channels_beyond_the_guided_ones_are_conds_bitwise() -> None:
    cond, ref = rand(SHAPE, F16), rand(SHAPE, F16)
    ref[:, 2:] = torch.nan
    cond[:, 2:] = torch.inf
    out = nan(SHAPE, F16)
    extension.op("combine")(cond, ref, None, 3.0, 2, out)
    assert torch.equal(bits(out[:, 2:]), bits(cond[:, 2:]))
    assert torch.isfinite(out[:, :2]).all()


def test_out_may_be_cond() -> None:
    cond, ref = rand(LARGE), rand(LARGE)
    wanted = verify(cond, ref)
    extension.op("combine")(cond, ref, None, 1.7, -1, cond)
    assert torch.equal(cond, wanted)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_bit_is_that_of_plain_torch(dtype: torch.dtype) -> None:
    cond, ref, term = (rand(LARGE, dtype) for _ in range(3))
    out = verify(cond, ref, term, channels=3)
    assert torch.equal(out, formulas.combine(cond, ref, term, 1.7, 3))


def every_value(dtype: torch.dtype, device: str) -> Tensor:
    """All 65536 patterns of 16 bits."""
    return torch.arange(-(2**15), 2**15, dtype=torch.int16, device=device).view(1, -1).view(dtype)


@pytest.mark.parametrize("dtype", [F16, BF16], ids=str)
def test_every_number_of_16_bits_goes_through_unharmed(dtype: torch.dtype, device: str) -> None:
    cond = every_value(dtype, device)
    term, out = torch.zeros_like(cond), torch.zeros_like(cond)
    extension.op("combine")(cond, None, term, 1.0, -1, out)
    number = ~cond.isnan() & (cond != 0)  # -0 + 0 is 0
    assert torch.equal(bits(out[number]), bits(cond[number]))
    assert torch.equal(out.isnan(), cond.isnan()) and (out[cond == 0] == 0).all()


@pytest.mark.parametrize("dtype", [F16, BF16], ids=str)
def test_sums_are_rounded_to_nearest_even(dtype: torch.dtype, device: str) -> None:
    """Every number plus half of its last place, and a little less and more; in float32 as torch."""
    cond = every_value(dtype, device)
    cond = cond[cond.isfinite()].view(1, -1)
    place = torch.finfo(dtype).eps * cond.float().abs() + torch.finfo(dtype).tiny * 2.0**-10
    for part in (0.25, 0.5, 0.75, 1.0):
        term, out = part * place, torch.zeros_like(cond)
        extension.op("combine")(cond, None, term, 1.0, -1, out)
        assert torch.equal(bits(out), bits((cond.float() + term).to(dtype)))
