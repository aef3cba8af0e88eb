"""How tensors are read as (B, C, S), and which path that takes through the kernels."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import F32, LAYOUTS, WRITABLE

pytest.importorskip("triton", reason="triton is not installed")

from reg_engine.kernels import strides  # noqa: E402

SHAPE = (3, 5, 4, 6)


@pytest.mark.parametrize("name", LAYOUTS)
def test_three_strides_reach_every_element(name: str) -> None:
    tensor = LAYOUTS[name](SHAPE, F32)
    found = strides.collapse(tensor.shape, tensor.stride())
    if name in ("crop", "transposed"):
        assert found is None
        assert strides.readable(tensor).is_contiguous()
        return
    assert strides.readable(tensor) is tensor
    view = tensor.as_strided((3, 5, 24), found, tensor.storage_offset())
    assert torch.equal(view, tensor.flatten(2))


@pytest.mark.parametrize(
    ("shape", "stride", "found"),
    [
        ((4,), (2,), (2, 0, 0)),
        ((4, 9), (9, 1), (9, 1, 0)),
        ((4, 9), (1, 4), (1, 4, 0)),
        ((1, 9), (77, 1), (0, 1, 0)),  # a dimension of size 1 has no stride worth the name
        ((2, 3, 1, 1), (3, 1, 8, 8), (3, 1, 0)),
        ((2, 3, 1, 4), (12, 4, 99, 1), (12, 4, 1)),
        ((2, 3, 4, 5, 6), (360, 120, 30, 6, 1), (360, 120, 1)),
        ((2, 3, 4, 5, 6), (360, 120, 30, 12, 1), None),
    ],
)
def test_collapse(shape: tuple, stride: tuple, found: tuple | None) -> None:
    assert strides.collapse(shape, stride) == found


CONTIGUOUS, CHANNELS_LAST = (120, 24, 1), (120, 1, 5)


@pytest.mark.parametrize(
    ("given", "by_row", "ordered", "rows", "flat"),
    [
        ([CONTIGUOUS, CONTIGUOUS], False, False, 1, True),
        ([CONTIGUOUS, None], True, True, 3, True),
        ([CHANNELS_LAST, CHANNELS_LAST], False, False, 1, True),
        ([CHANNELS_LAST, CHANNELS_LAST], True, False, 3, True),
        ([CHANNELS_LAST, CHANNELS_LAST], True, True, 3, False),
        ([CONTIGUOUS, CHANNELS_LAST], False, False, 3, False),
        ([CONTIGUOUS, (192, 24, 1)], False, False, 3, True),  # a slice of the channels
        ([CONTIGUOUS, (0, 24, 1)], False, False, 3, True),  # one sample for all
        ([CONTIGUOUS, (0, 0, 0)], False, False, 3, False),  # one number for all
        ([CONTIGUOUS, (240, 48, 2)], False, False, 3, False),
    ],
)
def test_paths(given: list, by_row: bool, ordered: bool, rows: int, flat: bool) -> None:
    layout = strides.arrange(SHAPE, tuple(given), by_row, ordered)
    assert (layout.rows, layout.flat) == (rows, flat)
    assert layout.rows * layout.size == 360
    assert layout.strides == tuple(s or (0, 0, 0) for s in given)
    assert not layout.wide
    assert [layout.blocks(n) for n in (1, layout.size, layout.size - 1)] == [layout.size, 1, 2]


@pytest.mark.parametrize(
    ("shape", "stride", "by_row", "wide"),
    [
        ((1, 2, 2**30 - 2**16), (0, 2**30, 1), True, False),
        ((1, 2, 2**30), (0, 2**30, 1), True, True),  # too many elements in a row
        ((4, 2, 2**29), (2**30, 2**29, 1), True, False),  # rows start at 64-bit offsets
        ((4, 2, 2**29), (2**30, 2**29, 1), False, True),  # unless the batch is one row
        ((4, 2, 2**10), (1, 2**31 - 2**17, 4), True, False),
        ((4, 2, 2**10), (1, 2**31, 4), True, True),  # few elements, far apart
        ((2**20, 2, 2**10), (2**40, 2**10, 1), True, False),
        ((4, 2**16, 2**16), (0, 0, 0), True, True),  # no memory, many elements
    ],
)
def test_width_of_the_index(shape: tuple, stride: tuple, by_row: bool, wide: bool) -> None:
    assert strides.arrange(shape, (stride,), by_row, False).wide is wide


def test_an_output_that_cannot_be_walked_is_written_through_a_buffer() -> None:
    for name, make in WRITABLE.items():
        out = make(SHAPE, F32).fill_(0)
        with strides.writable(out) as target:
            assert (target is out) == (name not in ("crop", "transposed"))
            target.fill_(1)
        assert (out == 1).all()
