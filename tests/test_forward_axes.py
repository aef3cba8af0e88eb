"""Where the stacking dimension goes, beside what PyTorch does to a marked dimension."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor

from reg_engine.errors import EstimatorError
from reg_engine.forward.axes import indexed, kept, permuted, reduced, reshaped, unsqueezed

SHAPE = (2, 3, 4, 5)


def marked(axis: int) -> Tensor:
    """Numbers that differ along `axis` alone."""
    shape = [1] * 4
    shape[axis] = -1
    return torch.arange(SHAPE[axis]).view(shape).expand(SHAPE)


def moving(x: Tensor) -> list[int]:
    """The dimensions along which a tensor is not constant."""
    return [dim for dim in range(x.dim()) if not (x == x.narrow(dim, 0, 1)).all()]


@pytest.mark.parametrize("axis", range(4))
def test_permutations(axis: int) -> None:
    for dims in permutations(range(-4, 0)):
        assert [permuted(axis, dims)] == moving(marked(axis).permute(dims))


@pytest.mark.parametrize("axis", range(4))
def test_new_and_removed_dimensions(axis: int) -> None:
    for dim in range(-5, 5):
        assert [unsqueezed(axis, 4, dim)] == moving(marked(axis).unsqueeze(dim))
    for gone in ([0], [1, 3], [0, 1, 2], [3]):
        if axis not in gone:
            assert [reduced(axis, gone)] == moving(marked(axis).float().mean(gone))
            assert reduced(axis, gone, keepdim=True) == axis


def test_dimensions_that_an_op_works_along() -> None:
    assert kept(len, 0, 3, -1) == {2}
    assert kept(len, 1, 3, (0, -1)) == {0, 2}
    for dims in (None, 1, -2, (0, 1), ()):
        with pytest.raises(EstimatorError, match="len works along the batch"):
            kept(len, 1, 3, dims)


INDICES: list[Any] = [
    slice(None),
    ...,
    None,
    (None, ..., None),
    1,
    (slice(None), 1),
    (..., 1),
    (..., 0, slice(1, 3)),
    (0, slice(None), None, 2),
    (slice(None), slice(0, 2)),
    torch.tensor([1, 0]),
    [1, 0],
    (slice(None), torch.tensor([1, 0])),
    (slice(None), torch.tensor([[1, 0]]), torch.tensor([1, 0])),
    (slice(None), torch.tensor(1)),
    (..., torch.tensor([True, False, True, True, False])),
    (slice(None), torch.tensor([True, False, True])),
    (slice(None), torch.ones(3, 4, dtype=torch.bool)),
    (None, torch.tensor([1, 0])),
    (slice(None), slice(None), slice(None), None, torch.tensor([1, 0])),
]


@pytest.mark.parametrize("axis", range(4))
@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indices(index: Any, axis: int) -> None:
    """Where the index leaves the dimension alone, it is found; else the index is refused."""
    whole = marked(axis)[index]
    dims = moving(whole)
    try:
        found = indexed(len, SHAPE, axis, index)
    except EstimatorError as error:
        rows = whole.unique_consecutive(dim=dims[0]).flatten().tolist() if dims else []
        assert rows != list(range(SHAPE[axis])) or "in an order without a rule" in str(error)
        return
    assert [found] == dims
    assert whole.shape[found] == SHAPE[axis]


@pytest.mark.parametrize("axis", range(4))
def test_an_index_of_the_batch_is_refused(axis: int) -> None:
    place = (slice(None),) * axis
    for item in (0, slice(1, None), slice(None, None, 2), [0, 1], torch.tensor([0, 1])):
        with pytest.raises(EstimatorError, match="takes rows out of the batch"):
            indexed(len, SHAPE, axis, (*place, item))
    mask = torch.ones(SHAPE[axis], dtype=torch.bool)
    with pytest.raises(EstimatorError, match="takes rows out of the batch"):
        indexed(len, SHAPE, axis, (*place, mask))


@pytest.mark.parametrize(
    ("shape", "axis", "new", "place"),
    [
        ((6, 4, 5), 0, (6, 20), 0),
        ((6, 4, 5), 0, (24, 5), 0),
        ((6, 4, 5), 0, (1, 6, 20), 1),
        ((6, 4, 5), 0, (1, 1, 6, 4, 5), 2),
        ((6, 4, 5), 0, (120,), 0),
        ((24, 5), 0, (6, 4, 5), 0),
        ((4, 6, 5), 1, (2, 2, 6, 5), 2),
        ((4, 6, 5), 1, (4, 30), 1),
        ((4, 5, 6), 2, (20, 6), 1),
        ((4, 1, 6), 2, (4, 6), 1),
        ((2, 6, 4), 1, (2, 1, 6, 4), 2),
    ],
)
def test_views(shape: Any, axis: int, new: Any, place: int) -> None:
    assert reshaped(len, shape, axis, 3, new) == place


@pytest.mark.parametrize(
    ("shape", "axis", "new"),
    [
        ((4, 6, 5), 1, (24, 5)),
        ((4, 6), 1, (24,)),
        ((4, 6), 1, (6, 4)),
        ((6, 4), 0, (2, 12)),
        ((6, 4), 0, (4, 6)),
        ((2, 6, 4), 1, (4, 3, 4)),
    ],
)
def test_views_across_the_batch_are_refused(shape: Any, axis: int, new: Any) -> None:
    with pytest.raises(EstimatorError, match="mixes the rows of the batch"):
        reshaped(len, shape, axis, 3, new)
