"""The kernel of combine against its twin in plain torch."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from kernel_cases import (
    BF16,
    DEVICE,
    F16,
    F32,
    F64,
    FLOATS,
    LAYOUTS,
    SHAPES,
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

from reg_engine.ops import formulas

pytest.importorskip("triton", reason="triton is not installed")

from reg_engine.kernels import strides  # noqa: E402
from reg_engine.kernels.combine import combine  # noqa: E402

# Which of ref and term are given.
VARIANTS = {"cfg": (True, False), "rectifier": (True, True), "vector": (False, True)}
VARIANT = pytest.mark.parametrize("given", VARIANTS.values(), ids=VARIANTS)


def verify(
    cond: Tensor,
    ref: Tensor | None,
    term: Tensor | None,
    w: float = 1.7,
    channels: int = -1,
    make_out: Make = rand,
) -> None:
    out = poisoned(make_out, tuple(cond.shape), cond.dtype)
    combine(cond, ref, term, w, channels, out)
    exact = formulas.combine(*doubled(cond, ref, term), w, channels)
    check(out, formulas.combine(cond, ref, term, w, channels), exact)


@VARIANT
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_dtypes_and_shapes(dtype: torch.dtype, shape: tuple[int, ...], given: tuple) -> None:
    cond = rand(shape, dtype)
    ref, term = (rand(shape, dtype) if there else None for there in given)
    verify(cond, ref, term)
    verify(cond, ref, term, channels=1)


@pytest.mark.parametrize("dtypes", [*itertools.permutations(FLOATS, 3)], ids=str)
def test_each_input_has_its_own_dtype(dtypes: tuple[torch.dtype, ...]) -> None:
    verify(*(rand((2, 3, 5), dtype) for dtype in dtypes))


@pytest.mark.parametrize(
    ("place", "name"),
    [*itertools.product((0, 1, 2), LAYOUTS), *((3, name) for name in WRITABLE)],
)
def test_one_tensor_lies_differently(place: int, name: str) -> None:
    """cond, ref, term or out, in this order."""
    makes = [rand] * 4
    makes[place] = LAYOUTS[name]
    cond, ref, term = (make((3, 5, 4, 6), F32) for make in makes[:3])
    for channels in (-1, 2, 5):
        verify(cond, ref, term, channels=channels, make_out=makes[3])


@pytest.mark.parametrize("name", WRITABLE)
def test_all_tensors_lie_alike(name: str) -> None:
    make = WRITABLE[name]
    for channels in (-1, 2):
        verify(*(make((3, 5, 4, 6), F16) for _ in range(3)), channels=channels, make_out=make)


@pytest.mark.parametrize("channels", [-1, 0, 1, 4, 5, 99])
@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 7), (2, 5, 3, 4, 2)], ids=str)
def test_only_the_first_channels_are_guided(shape: tuple[int, ...], channels: int) -> None:
    cond, ref = rand(shape), rand(shape)
    untouched = shape[1] if channels < 0 else channels
    ref[:, untouched:] = math.nan  # never looked at
    out = nan(shape)
    combine(cond, ref, None, 2.0, channels, out)
    clean = ref.nan_to_num()
    exact = formulas.combine(*doubled(cond, clean, None), 2.0, channels)
    check(out, formulas.combine(cond, clean, None, 2.0, channels), exact)
    assert torch.equal(out[:, untouched:], cond[:, untouched:])


@VARIANT
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_no_weight_returns_cond_bitwise(dtype: torch.dtype, given: tuple) -> None:
    cond = rand((3, 5, 4, 6), dtype)
    cond.view(-1)[:4] = torch.tensor([math.nan, math.inf, -0.0, -math.inf])
    ref, term = (nan((3, 5, 4, 6), dtype) if there else None for there in given)
    for w, r, t in ((0.0, ref, term), (3.0, None, None)):
        out = nan((3, 5, 4, 6), dtype)
        combine(cond, r, t, w, -1, out)
        assert torch.equal(bits(out), bits(cond))


def test_a_weight_keeps_the_precision_of_float64() -> None:
    """1/3 rounded to float32 is off by 1e-8, a million times what is allowed here."""
    cond, ref, w = rand((2, 3), F64), rand((2, 3), F64), 1 / 3
    out = nan((2, 3), F64)
    combine(cond, ref, None, w, -1, out)
    assert (out - (cond + w * (cond - ref))).abs().max() < 1e-14


def test_nothing_to_compute_launches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reg_engine.kernels.combine._combine_kernel", None)
    for cond, w in ((rand((0, 3, 4)), 2.0), (rand((3, 0, 4)), 2.0), (rand((3, 4)), 0.0)):
        out = nan(tuple(cond.shape))
        combine(cond, cond, None, w, -1, out)
        assert torch.equal(out, cond)


@pytest.mark.usefixtures("wide_indices")
@pytest.mark.parametrize("channels", [-1, 3])
def test_indices_of_64_bits(channels: int) -> None:
    cond, ref = rand((2, 5, 3, 4)), LAYOUTS["channels_last"]((2, 5, 3, 4), BF16)
    assert strides.lay_out([cond, ref]).wide
    verify(cond, ref, None, channels=channels)
    verify(cond, cond.flip(0), None, channels=channels)


@pytest.mark.gpu
@pytest.mark.parametrize("flat", [True, False], ids=("flat", "strided"))
def test_more_than_2_31_elements(flat: bool) -> None:
    """The last elements of 4.3 GB lie beyond what 32 bits count."""
    shape = (1, 2, 2**30 + 1024)
    cond = torch.zeros(shape, dtype=F16, device=DEVICE)
    ref = torch.zeros(shape if flat else (1, 1, 1), dtype=F16, device=DEVICE).expand(shape)
    tail = rand((2, 1024), F16)
    cond[0, :, -1024:] = tail
    out = torch.full_like(cond, math.nan)
    combine(cond, ref, None, 1.0, -1, out)
    assert torch.equal(out[0, :, -1024:], 2 * tail)
    assert not out[0, :, :-1024].any()
