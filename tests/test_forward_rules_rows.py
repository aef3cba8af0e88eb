"""Primal and tangent rows of a result, and constants beside stacked duals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from reg_engine.errors import EstimatorError
from reg_engine.forward.rules.rows import (
    aligned,
    blank,
    held,
    into,
    joined,
    latest,
    lifted,
    plain,
    rows_of,
    taken,
)
from reg_engine.forward.tensor import StackedDual, is_dual, raw, stack

A, Z, T1, T2 = (torch.full((2, 3), float(k)) + torch.arange(3) / 10 for k in (1, 2, 30, 40))
X = stack([A, Z], [T1, T2])


def inside(function, *args):  # type: ignore[no-untyped-def]
    """A call as rules make it."""
    with torch._C.DisableTorchFunctionSubclass():
        return function(*args)


def test_the_sources_rows_stand_beside_the_tangents() -> None:
    assert torch.equal(inside(held, X), torch.cat([A, Z, Z, Z]))
    assert inside(held, A) is A
    assert torch.equal(inside(latest, torch.cat([A, Z]) * 5, X), torch.cat([Z, Z]) * 5)
    uneven = stack([A[:1], Z], [T1])
    assert torch.equal(inside(latest, torch.cat([A[:1], Z]), uneven), Z)
    assert not is_dual(inside(plain, X)) and inside(plain, X).data_ptr() == raw(X).data_ptr()
    assert inside(plain, "a") == "a"


class Names(TorchDispatchMode):
    """Which operations ran."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.append(op._schema.name)
        return op(*args, **(kwargs or {}))


def test_a_number_is_made_on_the_device() -> None:
    """On a GPU a copy from the host ends the recording of a graph."""
    with Names() as ran:
        made = inside(lifted, 2.5, X)
    assert torch.equal(raw(made), torch.cat([torch.full((4, 3), 2.5), torch.zeros(4, 3)]))
    assert made.dtype == X.dtype and not {"aten::lift_fresh", "aten::_to_copy"} & {*ran.names}


def test_results_are_joined_as_the_op_lays_them_in_memory() -> None:
    rows, t = torch.cat([A, Z]), torch.cat([T1, T2])
    for first in (rows, rows.t().contiguous().t()):
        made = inside(joined, X, first, t)
        assert torch.equal(raw(made), torch.cat([rows, t])) and type(made) is type(X)
    turned = X.t().contiguous().t()
    made = inside(joined, turned, rows.t().contiguous().t(), t)
    assert raw(made).stride() == raw(turned).stride() != raw(X).stride()
    assert torch.equal(raw(made), torch.cat([rows, t]))
    wide = inside(joined, X, rows[None], t[None], 1)
    assert wide.axis == 1 and wide.shape == (1, 8, 3)


def test_room_for_a_result() -> None:
    made = inside(blank, X, torch.float64)
    assert type(made) is type(X) and made.dtype == torch.float64 and made.shape == X.shape
    assert inside(blank, X.t()).stride() == X.t().stride()


def test_constants_beside_rows() -> None:
    rows, scalar, wide = torch.arange(8.0)[:, None], torch.tensor(2.0), torch.ones(5, 8, 3)
    for c, place in ((rows, 0), (scalar, None), (torch.ones(3), None), (wide, 1), (0.5, None)):
        assert inside(rows_of, c, X) == place
    assert inside(rows_of, torch.ones(1, 3), X) is None
    assert inside(taken, rows, X).flatten().tolist() == [0, 1, 2, 3]
    assert inside(taken, rows, X, True).flatten().tolist() == [4, 5, 6, 7]
    assert inside(taken, scalar, X) is scalar and inside(taken, 0.5, X) == 0.5
    assert inside(taken, wide, X).shape == (5, 4, 3)


def test_a_constant_as_a_stacked_dual_has_no_tangent() -> None:
    for c in (torch.arange(8.0)[:, None], torch.arange(3.0), torch.tensor(0.1), 0.1):
        made = inside(lifted, c, X)
        assert isinstance(made, StackedDual) and made.shape == X.shape
        wanted = torch.as_tensor(c).expand(8, 3).clone()
        wanted[4:] = 0
        assert torch.equal(raw(made), wanted)
    double = stack([A.double()], [T1.double()])
    assert raw(inside(lifted, 0.1, double))[0, 0].item() == 0.1
    assert inside(lifted, torch.ones(5, 1, 3), X).axis == 1


def test_writing_into_rows() -> None:
    x = stack([A, Z], [T1, T2])
    assert inside(into, x, X * 2) is x
    assert torch.equal(raw(x), raw(X) * 2)


def test_rows_that_do_not_meet_are_refused() -> None:
    inside(aligned, torch.add, X, X[:, :1])
    wrong: list[Tensor] = [X.t(), stack([A], [T1]), stack([A, Z], [T1]), X[None].transpose(0, 1)]
    for other in wrong:
        with pytest.raises(EstimatorError, match="network: add (joins|pairs)"):
            inside(aligned, torch.add, X, other)
