"""The kernel of the network's batched input against its twin in plain torch."""

from __future__ import annotations

import itertools

import pytest
import torch
from kernel_cases import DEVICE, F16, F32, F64, FLOATS, LAYOUTS, SHAPES, check, nan, rand
from torch import Tensor

from reg_engine.ops import formulas
from reg_engine.ops.coefficients import FIRST_B

pytest.importorskip("triton", reason="triton is not installed")

from reg_engine.kernels import strides  # noqa: E402
from reg_engine.kernels.probe import probe  # noqa: E402

ROW = 2


def verify(
    x: Tensor,
    direction: Tensor,
    copies: int = 2,
    dtype: torch.dtype = F16,
    length: Tensor | None = None,
    table: Tensor | None = None,
) -> Tensor:
    length = rand((x.shape[0],), x.dtype) if length is None else length
    table = rand((5, FIRST_B + 3), x.dtype) if table is None else table
    step = torch.tensor([ROW], device=DEVICE)
    out = nan(((copies + 1) * x.shape[0], *x.shape[1:]), dtype)
    probe(x, direction, length, table, step, copies, out)
    doubled = [t.double() for t in (x, direction, length, table)]
    exact = formulas.probe(*doubled, step, copies)
    check(out, formulas.probe(x, direction, length, table, step, copies, dtype), exact)
    return out


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("state", [F32, F64], ids=str)
def test_dtypes_and_shapes(state: torch.dtype, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    verify(rand(shape, state), rand(shape, state), dtype=dtype)


@pytest.mark.parametrize("direction", FLOATS, ids=str)
@pytest.mark.parametrize("state", [F32, F64], ids=str)
def test_direction_has_its_own_dtype(state: torch.dtype, direction: torch.dtype) -> None:
    verify(rand((3, 5, 7), state), rand((3, 5, 7), direction), dtype=F32)


@pytest.mark.parametrize("copies", range(4))
def test_copies(copies: int) -> None:
    x, direction = rand((3, 5, 7)), rand((3, 5, 7))
    out = verify(x, direction, copies, F32).unflatten(0, (copies + 1, 3))
    assert (out[:-1] == out[:1]).all()
    assert (out[-1] != out[0]).any() == (copies > 0)


@pytest.mark.parametrize(("place", "name"), [*itertools.product(range(2), LAYOUTS)])
def test_x_or_direction_lies_differently(place: int, name: str) -> None:
    makes = [rand, rand]
    makes[place] = LAYOUTS[name]
    verify(*(make((3, 5, 4, 6), F32) for make in makes))


@pytest.mark.parametrize("name", LAYOUTS)
def test_both_lie_alike(name: str) -> None:
    """out is contiguous whatever the inputs are."""
    verify(LAYOUTS[name]((3, 5, 4, 6), F32), LAYOUTS[name]((3, 5, 4, 6), F32))


def test_length_and_table_may_be_views() -> None:
    table = rand((FIRST_B + 1, 5)).mT
    for length in (rand((6,))[::2], rand((1,)).expand(3)):
        verify(rand((3, 5, 7)), rand((3, 5, 7)), length=length, table=table)


def test_a_sample_of_length_0_is_a_copy() -> None:
    length = torch.tensor([0.5, 0.0, 2.0], device=DEVICE)
    first, second = verify(rand((3, 4, 5)), rand((3, 4, 5)), 1, length=length).chunk(2)
    assert torch.equal(first[1], second[1])
    assert (first[[0, 2]] != second[[0, 2]]).any(dim=(1, 2)).all()


def test_no_elements_launch_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reg_engine.kernels.probe._probe_kernel", None)
    for shape in ((0, 3, 4), (3, 0, 4)):
        verify(rand(shape), rand(shape))


@pytest.mark.usefixtures("wide_indices")
@pytest.mark.parametrize("name", ["contiguous", "channels_last"])
def test_indices_of_64_bits(name: str) -> None:
    x = LAYOUTS[name]((3, 5, 4, 6), F32)
    assert strides.lay_out([x]).wide
    verify(x, rand((3, 5, 4, 6)))


@pytest.mark.gpu
def test_more_than_2_31_elements_out() -> None:
    """Rows that start beyond what 32 bits count: 2^31 + 2^21 numbers of half precision."""
    shape = (1024, 1, 2**20 + 1024)
    x = torch.zeros(shape, device=DEVICE)
    x[-1, 0, -1024:] = tail = rand((1024,))
    out = nan((2 * shape[0], *shape[1:]), F16)
    table = torch.ones((1, FIRST_B + 1), device=DEVICE)
    step, length = torch.tensor([0], device=DEVICE), torch.ones(shape[0], device=DEVICE)
    probe(x, x, length, table, step, 1, out)
    assert torch.equal(out[shape[0] - 1, 0, -1024:], tail.half())
    assert torch.equal(out[-1, 0, -1024:], (2 * tail).half())
    assert torch.isfinite(out).all()
