"""Stored tensors: equal to torch's views, never beyond their bytes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from fuzz_settings import given
from hypothesis import strategies as st
from pickle_cases import same

from reg_engine.convert.tensors import DTYPES, Storage, Stored

BYTES = memoryview(bytes(range(256)) * 4)


def stored(offset: Any, shape: Any, stride: Any, dtype: torch.dtype = torch.int16) -> Stored:
    storage = Storage(dtype, len(BYTES) // dtype.itemsize, BYTES)
    return Stored(storage, dtype, offset, tuple(shape), tuple(stride))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_every_dtype_is_read_bit_for_bit(dtype: torch.dtype) -> None:
    flat = torch.frombuffer(bytearray(BYTES), dtype=torch.uint8)
    flat = flat % 2 == 1 if dtype == torch.bool else flat.view(dtype)
    data = flat.view(torch.uint8).numpy().tobytes()
    storage = Storage(dtype, len(flat), memoryview(data))
    found = Stored(storage, dtype, 3, (4, 2), (5, 1)).read()
    assert same(found, flat.as_strided((4, 2), (5, 1), 3)) and found.is_contiguous()


def test_the_names_are_those_of_safetensors() -> None:
    from safetensors.torch import _TYPES

    assert {name: _TYPES[name] for name in DTYPES} == DTYPES


@given(
    offset=st.integers(0, 600),
    sides=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 200)), max_size=4),
)
def test_views_are_torchs_or_refused(offset: int, sides: list[tuple[int, int]]) -> None:
    shape, stride = [side for side, _ in sides], [step for _, step in sides]
    flat = torch.frombuffer(bytearray(BYTES), dtype=torch.int16)
    count = math.prod(shape)
    inside = offset + sum((n - 1) * s for n, s in sides) < len(flat)
    if count == 0 or (inside and count <= len(flat)):
        assert same(stored(offset, shape, stride).read(), flat.as_strided(shape, stride, offset))
    else:
        with pytest.raises(ValueError, match="claims"):
            stored(offset, shape, stride)


@pytest.mark.parametrize(
    ("offset", "shape", "stride", "says"),
    [
        (512, (), (), "claims 1026 bytes of a storage of 1024"),
        (511, (2,), (1,), "claims 1026"),
        (0, (513,), (1,), "claims 1026"),
        (0, (513,), (0,), "claims 1026"),  # one number for all: 10 GB of one byte
        (0, (2,), (512,), "claims 1026"),
        (0, (1 << 62,), (1 << 62,), "claims"),
        (-1, (2,), (1,), "no integers"),
        (0, (-2,), (1,), "no integers"),
        (0, (2,), (-1,), "no integers"),
        (0, (True,), (1,), "no integers"),
        (0, (2.0,), (1,), "no integers"),
        (None, (2,), (1,), "no integers"),
        (0, (2,), ("1",), "no integers"),
        (0, (1 << 63,), (1,), "no integers"),
        (0, (2, 2), (1,), "2 sizes and 1 strides"),
        (0, (1,) * 17, (1,) * 17, "17 sizes"),
        (0, (0, 1 << 41), (1, 1), "empty"),
        (0, (0, 1 << 30, 1 << 30), (1, 1, 1), "empty"),
    ],
)
def test_what_lies_outside_is_refused(offset: Any, shape: Any, stride: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        stored(offset, shape, stride)


def test_the_edge_is_inside() -> None:
    assert stored(511, (), ()).read().item() == int.from_bytes(BYTES[-2:], "little", signed=True)
    assert stored(0, (512,), (1,)).read().shape == (512,)
    assert stored(0, (1,) * 16, (1,) * 16).numel == 1
    empty = stored(10_000, (0, 1 << 40), (1, 1))
    assert empty.read().shape == (0, 1 << 40) and empty.nbytes == 0
    assert stored(0, (3, 2), (1, 1)).nbytes == 12


def test_a_storage_has_the_bytes_that_it_claims() -> None:
    assert Storage(torch.float32, 256, BYTES).nbytes == 1024
    with pytest.raises(ValueError, match="claims 1028 bytes, 1024 are there"):
        Storage(torch.float32, 257, BYTES)
    for size in (-1, True, 1.0, None, "3"):
        with pytest.raises(ValueError, match="without a size"):
            Storage(torch.float32, size)  # type: ignore[arg-type]
    late = Storage(torch.float32, 2)
    held = Stored(late, torch.float32, 0, (2,), (1,))
    with pytest.raises(ValueError, match="without bytes"):
        held.read()
    with pytest.raises(ValueError, match="claims 8 bytes, 7"):
        late.attach(BYTES[:7])
    late.attach(BYTES)
    assert late.data is not None and len(late.data) == 8
    assert same(held.read(), torch.frombuffer(bytearray(BYTES[:8]), dtype=torch.float32))


def test_only_what_a_tensor_spans_is_copied() -> None:
    big = memoryview(bytes(1 << 26))
    storage = Storage(torch.uint8, len(big), big)
    found = Stored(storage, torch.uint8, 1000, (2, 2), (5, 1)).read()
    assert found.untyped_storage().nbytes() == 4
