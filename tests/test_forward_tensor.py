"""The stacked dual itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from reg_engine.forward.tensor import (
    StackedDual,
    edges,
    is_dual,
    kind,
    primal,
    raw,
    same,
    source,
    stack,
    tangent,
    units,
    wrap,
)


def numbered(count: int, start: int = 0) -> Tensor:
    return torch.arange(start, start + count, dtype=torch.float64)[:, None].expand(count, 2).clone()


@pytest.mark.parametrize(
    ("sizes", "tangents", "layout"),
    [
        ((3,), 1, (1, 1, 1)),
        ((3, 3), 2, (2, 1, 2)),
        ((3, 3, 3), 1, (3, 1, 1)),
        ((2, 4), 1, (3, 2, 1)),
        ((4, 2), 3, (3, 1, 3)),
        ((3, 2), 1, (5, 2, 1)),
        ((0, 2), 1, (1, 1, 1)),
        ((0,), 1, (1, 1, 1)),
    ],
)
def test_rows_are_found_where_they_were_put(
    sizes: tuple[int, ...], tangents: int, layout: tuple[int, int, int]
) -> None:
    primals = [numbered(n, 10 * k) for k, n in enumerate(sizes)]
    moving = [numbered(sizes[-1], 100 + 10 * k) for k in range(tangents)]
    x = stack(primals, moving)
    assert is_dual(x) and not is_dual(raw(x)) and not is_dual(primals[0])
    assert (x.primals, x.sources, x.tangents, x.axis) == (*layout, 0)
    assert torch.equal(raw(x), torch.cat([*primals, *moving]))
    assert raw(x).data_ptr() == raw(x).data_ptr()
    with torch._C.DisableTorchFunctionSubclass():
        assert torch.equal(primal(x), torch.cat(primals))
        assert torch.equal(source(x), torch.cat([primals[-1]] * tangents))
        assert torch.equal(tangent(x), torch.cat(moving))
        assert len(x) % units(x) == 0
        assert edges(x, len(x)) == (sum(sizes[:-1]), sum(sizes))


def test_rows_along_another_dimension() -> None:
    x = stack([numbered(2)], [numbered(2, 5)]).t()
    assert x.axis == 1 and type(x) is kind(1, 1, 1)
    with torch._C.DisableTorchFunctionSubclass():
        assert torch.equal(primal(x), numbered(2).t())
        assert torch.equal(source(x), numbered(2).t())
        assert torch.equal(tangent(x), numbered(2, 5).t())


def test_parts_are_views_of_the_rows() -> None:
    x = stack([torch.zeros(2, 3)], [torch.zeros(2, 3)])
    with torch._C.DisableTorchFunctionSubclass():
        tangent(x).fill_(2.0)
        primal(x).fill_(1.0)
    assert raw(x).flatten().tolist() == [1.0] * 6 + [2.0] * 6


def test_layouts_are_classes() -> None:
    x, y = stack([numbered(2)] * 2, [numbered(2)]), stack([numbered(2)], [numbered(2)])
    assert kind(2, 1) is kind(2, 1) is type(x)
    y4 = raw(x)[:, :, None, None].as_subclass(kind(2, 1, 3))
    assert (y4.axis, y4.primals, y4.sources, y4.tangents) == (3, 2, 1, 1)
    assert same(x, x[:, 0]) and not same(x, y)
    assert not same(x, stack([numbered(1), numbered(2)], [numbered(2)]))
    assert type(wrap(raw(x), x, 1)) is kind(2, 1, 1)
    assert type(wrap(raw(x), x)) is type(x)
    assert issubclass(type(x), StackedDual)


def test_a_new_layout_is_made_once_by_many_threads() -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: kind(7, 11, 2), range(64)))
    assert len(set(map(id, found))) == 1
