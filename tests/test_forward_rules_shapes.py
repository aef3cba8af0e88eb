"""Views and copies, and what gathers or joins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from forward_cases import Moves, Rows, Table, check_all, example, unvisited
from torch import Tensor

from reg_engine.errors import EstimatorError
from reg_engine.forward import jvp


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


X, Y = Moves((2, 3, 4)), Moves((2, 3, 4))
PAIRS = Moves((2, 3, 2))
COMPLEX = Moves((2, 3, 2), torch.view_as_complex)
TABLE: Table = {}
T, A = torch, (0, 1, 2)

example(
    TABLE, "clone contiguous neg negative __neg__ positive __pos__ conj resolve_conj", X, axis=A
)
example(TABLE, "resolve_neg real", X)
example(TABLE, "view_as_complex", PAIRS)
example(TABLE, "conj resolve_conj neg clone real imag view_as_real", COMPLEX, twin=False)
example(TABLE, "exp tanh abs sigmoid", COMPLEX, fallback=True, twin=False)
example(TABLE, "norm", COMPLEX, dim=1, fallback=True, twin=False)
example(TABLE, "to", X, torch.float64)
example(TABLE, "to", X, dtype=torch.int64)
example(TABLE, "to", X, noise(1))
example(TABLE, "to", noise(3).float(), X)
example(TABLE, "to", X, "cpu", torch.float64, copy=True)
example(TABLE, "double cpu", X)
example(TABLE, "type", X, torch.float64)
example(TABLE, "type_as", X, Y)

example(TABLE, "reshape view", X, -1, 4, homes=(Tensor,))
example(TABLE, "reshape view", X, (-1,))
example(TABLE, "reshape", X, (-1, 2, 2, 3))
example(TABLE, "reshape", X, -1, 12, homes=(Tensor,))
example(TABLE, "reshape", X, 2, -1, 2, 2, axis=1, homes=(Tensor,))
example(TABLE, "reshape", X, 1, 2, 3, -1, axis=2, homes=(Tensor,))
example(TABLE, "reshape", X, (-1, 12), homes=(T,))
example(TABLE, "view_as reshape_as", X, Moves((2, 4, 3)), homes=(Tensor,))
example(TABLE, "flatten", X, 1)
example(TABLE, "flatten", X)
example(TABLE, "flatten", X, start_dim=0, end_dim=1)
example(TABLE, "flatten", X, 1, 2, axis=1)
example(TABLE, "unflatten", X, 2, (2, 2))
example(TABLE, "unflatten", Moves((6, 4)), 0, (-1, 3))
example(TABLE, "ravel", X)

example(TABLE, "transpose swapaxes swapdims", X, 0, 1, axis=A, twin=False)
example(TABLE, "transpose swapaxes swapdims", X, -1, -2, axis=A, twin=False)
example(TABLE, "transpose", X, dim0=1, dim1=2, twin=False)
example(TABLE, "t", Moves((2, 3)), axis=(0, 1), twin=False)
example(TABLE, "t", Moves((2,)), twin=False)
example(TABLE, "permute", X, (2, 0, 1), axis=A)
example(TABLE, "permute", X, dims=(0, 2, -2))
example(TABLE, "permute", X, 1, 2, 0, homes=(Tensor,))
example(TABLE, "movedim moveaxis", X, 0, 2, axis=A)
example(TABLE, "movedim moveaxis", X, (0, 1), (1, -1), axis=A)
example(TABLE, "unsqueeze", X, 0, axis=A, twin=False)
example(TABLE, "unsqueeze", X, -1, axis=A, twin=False)
example(TABLE, "unsqueeze", X, dim=-3, twin=False)
THIN = Moves((1, 2, 1, 3))
example(TABLE, "squeeze", THIN, axis=1, twin=False)
example(TABLE, "squeeze", THIN, 0, axis=1, twin=False)
example(TABLE, "squeeze", THIN, -1, axis=1, twin=False)
example(TABLE, "squeeze", THIN, (0, 2), axis=(1, 3), twin=False)
example(TABLE, "expand", Moves((2, 1, 4)), -1, 3, -1)
example(TABLE, "expand", Moves((2, 4)), 3, -1, -1, axis=(0, 1))
example(TABLE, "expand_as", Moves((2, 1, 4)), X)
example(TABLE, "expand_as", noise(4), X)
example(TABLE, "broadcast_to", Moves((2, 1)), (3, -1, 4))
example(TABLE, "expand_as", Rows((2, 1, 1)), X)
example(TABLE, "repeat", X, 1, 2, 3, homes=(Tensor,))
example(TABLE, "repeat", X, (3, 1, 1, 2), homes=(Tensor,))
example(TABLE, "tile", X, (2, 1), axis=(0, 2), homes=(T, Tensor))
example(TABLE, "tile", X, dims=(2, 1))
example(TABLE, "repeat_interleave", X, 2, 1, axis=A)
example(TABLE, "repeat_interleave", X, 2, dim=0)
example(TABLE, "repeat_interleave", X, torch.tensor([1, 2, 0]), dim=1)

example(TABLE, "chunk tensor_split", X, 2, 1)
example(TABLE, "chunk tensor_split", X, 2, dim=-1, axis=(0, 1))
example(TABLE, "chunk", X, 1)  # the whole batch
example(TABLE, "split", X, 2, 1)
example(TABLE, "split", X, [1, 2], dim=1)
example(TABLE, "split_with_sizes", X, [1, 2], 1)
example(TABLE, "tensor_split", X, [1, 2], dim=2)
example(TABLE, "unbind", X, 1, axis=(0, 2))
example(TABLE, "unbind", X, dim=-1)
example(TABLE, "select", X, 1, 2, axis=(0, 2))
example(TABLE, "select", X, dim=-1, index=0)

INDEX, LAST = torch.tensor([2, 0]), torch.tensor([1])
example(TABLE, "narrow", X, 1, 1, 2, axis=(0, 2))
example(TABLE, "narrow", X, dim=-1, start=1, length=2)
example(TABLE, "index_select", X, 1, INDEX, axis=(0, 2))
example(TABLE, "cumsum", X, 1, axis=(0, 2))
example(TABLE, "cumsum", X, dim=-1)
example(TABLE, "gather", X, 1, Rows((2, 2, 4), lambda z: (z > 0).long()))
example(TABLE, "take_along_dim", X, Rows((2, 2, 4), lambda z: (z > 0).long()), 1)
example(TABLE, "take_along_dim", X, INDEX[None, :, None], dim=1)
example(TABLE, "flip", X, (1, 2))
example(TABLE, "flip", X, dims=(-1,), axis=1)
example(TABLE, "flip", X, 1, 2, homes=(Tensor,))
example(TABLE, "roll", X, 1, 1)
example(TABLE, "roll", X, (1, 2), dims=(1, -1))
example(TABLE, "tril triu", X)
example(TABLE, "tril triu", X, 1)
example(TABLE, "diff", X)
example(TABLE, "diff", X, 2, 1, axis=(0, 2))
example(TABLE, "diff", X, dim=1)
example(TABLE, "diff", X, dim=1, prepend=Rows((2, 1, 4)), append=Moves((2, 1, 4)), fallback=True)

ITEMS = {
    "slice": (slice(None), slice(0, 2)),
    "number": (slice(None), 1),
    "last": (..., -1),
    "new": (None, ..., None),
    "list": (slice(None), [2, 0]),
    "tensor": (slice(None), INDEX),
    "bool": (slice(None), torch.tensor([True, False, True])),
    "both": (slice(None), INDEX, INDEX),
    "grid": (..., INDEX[:, None], INDEX),
    "zero": (slice(None), torch.tensor(1)),
    "first": slice(0, None),
    "dots": ...,
    "step": (slice(None), slice(None, None, 2), slice(1, None)),
}
for _item in ITEMS.values():
    example(TABLE, "__getitem__", X, _item, homes=(Tensor,))
for _item in ((0,), (1, slice(None)), LAST, (slice(None), slice(None), 1), (0, ..., 2), [1, 0]):
    example(TABLE, "__getitem__", X, _item, homes=(Tensor,), axis=1)
example(TABLE, "__getitem__", X, (LAST[:, None], INDEX), homes=(Tensor,), axis=2)

for _name in ("cat", "concat", "concatenate"):
    example(TABLE, _name, [X, Y], 1, axis=(0, 2))
    example(TABLE, _name, (X, Rows((2, 1, 4)), Y), dim=-2)
    example(TABLE, _name, [Rows((2, 3, 2)), X], dim=2)
    example(TABLE, _name, [X])  # along the batch, and alone
    example(TABLE, _name, [noise(0), X], -1)  # an empty cache of keys
example(TABLE, "stack", [X, Y], 1, axis=A)
example(TABLE, "stack", [X, Rows((2, 3, 4)), Y], dim=-1)
example(TABLE, "stack", [X, Y])
example(TABLE, "pad", X, (1, 2), homes=(F,), axis=(0, 1))
example(TABLE, "pad", X, (1, 2, 0, 1), value=0.3, homes=(F,))
example(TABLE, "pad", X, (1, 2), "constant", -1.0, homes=(F,))
example(TABLE, "pad", X, (1, 2), mode="reflect", homes=(F,))
example(TABLE, "pad", X, (1, 2), mode="circular", homes=(F,))


@pytest.mark.parametrize("name", TABLE)
def test_tangents_are_those_of_forward_ad(name: str) -> None:
    check_all(TABLE, name)


PLAIN = torch.randn(4, 6, dtype=torch.float64)


def test_half_and_type_names() -> None:
    for name in ("float", "half", "bfloat16"):
        found = jvp(lambda x, name=name: getattr(x, name)(), PLAIN, PLAIN)
        assert torch.equal(found.value, getattr(PLAIN, name)())
        assert found.tangent.dtype == found.value.dtype
        torch.testing.assert_close(found.tangent.double(), PLAIN, rtol=1e-2, atol=0)
    assert jvp(lambda x: x * len(x.type()), PLAIN, PLAIN).value.equal(PLAIN * 18)
    mixed = jvp(lambda x: torch.ones(1).to(x) * x, PLAIN, PLAIN)
    assert mixed.value.dtype == torch.float64


def test_properties_that_move_dimensions() -> None:
    image = torch.randn(3, 4, 5, dtype=torch.float64)
    for call in (
        lambda x: x.flatten(1).T.T,
        lambda x: x.flatten(1).H.mT.H.T,
        lambda x: x.mT.mH.data,
        lambda x: x.real.detach(),
    ):
        found = jvp(call, image, image.cos())
        assert torch.equal(found.value, call(image))
        torch.testing.assert_close(found.tangent.reshape(image.shape), image.cos())
    moved = jvp(lambda x: torch.stack([row * 2 for row in x.movedim(1, 0)], 1), image, image.cos())
    torch.testing.assert_close(moved.tangent, 2 * image.cos())


def test_detached_is_differentiated_like_the_function_it_is() -> None:
    """As a finite difference would have it, whichever way the network was trained."""
    for call in (lambda x: x.detach() * 3, lambda x: (x * 3).detach_(), lambda x: x.data * 3):
        found = jvp(call, PLAIN, PLAIN.cos())
        torch.testing.assert_close(found.tangent, 3 * PLAIN.cos())


MIXED: dict[str, Callable[[Tensor], Any]] = {
    "reshape": lambda x: x.t().reshape(-1),
    "view": lambda x: x.view(torch.int64),
    "view_as": lambda x: torch.ones(8, 6).view_as(x),
    "flatten": lambda x: x[:, :, None].transpose(0, 1).flatten(0, 1),
    "repeat": lambda x: x.repeat(2, 1),
    "tile": lambda x: torch.tile(x, (2, 1)),
    "repeat_interleave": lambda x: x.repeat_interleave(2),
    "chunk": lambda x: x.chunk(2),
    "split": lambda x: x.split(2),
    "tensor_split": lambda x: x.tensor_split(2),
    "unbind": lambda x: x.unbind(),
    "__iter__": lambda x: [row for row in x],
    "select": lambda x: x.select(0, 1),
    "narrow": lambda x: x.narrow(0, 0, 2),
    "index_select": lambda x: x.index_select(0, torch.tensor([0])),
    "cumsum": lambda x: x.cumsum(0),
    "gather": lambda x: x.gather(0, torch.zeros(8, 6, dtype=torch.long)),
    "take_along_dim": lambda x: x.take_along_dim(torch.zeros(8, 6, dtype=torch.long), 0),
    "flip": lambda x: x.flip(0),
    "roll": lambda x: x.roll(1, 0),
    "diff": lambda x: x.diff(dim=0),
    "tril": lambda x: x.tril(),
    "cat": lambda x: torch.cat([x, x]),
    "concat": lambda x: torch.concat([x, x.t()], 1),
    "stack": lambda x: torch.stack([x, x.t()], 1),
    "pad": lambda x: F.pad(x, (0, 0, 1, 0)),
    "permute": lambda x: x.permute(1, 0).reshape(3, -1),
}


@pytest.mark.parametrize("name", MIXED)
def test_what_mixes_the_rows_is_refused(name: str) -> None:
    with pytest.raises(EstimatorError, match=rf"network: ({name}|reshape|unbind) "):
        jvp(MIXED[name], PLAIN, PLAIN)


@pytest.mark.parametrize(
    "index",
    [
        0,
        -1,
        slice(None, None, 2),
        slice(2),
        slice(1, None),
        [0],
        torch.tensor([0]),
        torch.ones(8) > 0,
    ],
    ids=str,
)
def test_rows_cannot_be_taken_out(index: Any) -> None:
    with pytest.raises(EstimatorError, match="__getitem__ takes rows out of the batch"):
        jvp(lambda x: x[index], PLAIN, PLAIN)


def test_every_rule_has_an_example() -> None:
    own = {"__get__", "float", "half", "bfloat16", "type", "cuda", "__iter__", "detach", "detach_"}
    assert {name.rpartition(".")[2] for name in unvisited(TABLE, "shapes")} - own == set()
