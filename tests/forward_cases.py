"""Calls of ops on stacked duals, beside the plain op and forward AD in float64."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from forward_ad import jvp
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from reg_engine.forward.fallback import counted
from reg_engine.forward.rules.table import HOMES
from reg_engine.forward.tensor import COMPOSITES, RULES, is_dual, kind, raw

__all__ = ["BLOCKS", "Example", "Moves", "Rows", "check", "example", "params", "unvisited"]

BLOCKS = ((1, 1), (2, 1), (1, 3), (3, 2))  # primals, tangents


@dataclass(frozen=True)
class Rows:
    """Stands for a constant that has rows: shape of a block, and what is made of normal noise."""

    shape: tuple[int, ...]
    made: Callable[[Tensor], Tensor] = lambda z: z
    moves = False


@dataclass(frozen=True)
class Moves(Rows):
    """Stands for a stacked dual."""

    moves = True


@dataclass(frozen=True)
class Example:
    """Arguments of an op, with Moves and Rows among them; the stack is along `axis`."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    axis: int = 0
    fallback: bool = False


Table = dict[str, list[tuple[Example, tuple[Any, ...]]]]


def example(
    table: Table,
    names: str,
    *args: Any,
    axis: int | tuple[int, ...] = 0,
    homes: tuple[Any, ...] = HOMES,
    fallback: bool = False,
    **kwargs: Any,
) -> None:
    """Enter a call of the named ops, of each home that has it, for each axis."""
    for place in (axis,) if isinstance(axis, int) else axis:
        for name in names.split():
            entry = Example(args, kwargs, place, fallback), homes
            table.setdefault(name, []).append(entry)


def _calls(table: Table) -> Iterator[tuple[str, Any, Example]]:
    for name, entries in table.items():
        for call, homes in entries:
            found = {op for op in (getattr(h, name, None) for h in homes) if callable(op)}
            yield from ((name, op, call) for op in sorted(found, key=_title))


def _title(op: Any) -> str:
    return f"{getattr(op, '__module__', '')}.{getattr(op, '__qualname__', op)}"


def params(table: Table) -> list[Any]:
    """(op, example) for pytest.mark.parametrize."""
    return [pytest.param(op, call, id=f"{name}-{_title(op)}") for name, op, call in _calls(table)]


def unvisited(table: Table, module: str) -> set[str]:
    """Ops with a rule of `module` that no example of the table calls."""
    called = {op for _, op, _ in _calls(table) if not isinstance(op, type(torch))}
    own = {
        op
        for op, rule in [*RULES.items(), *COMPOSITES.items()]
        if op is not None and rule.__module__.endswith(f".{module}") and callable(op)
    }
    return {_title(op) for op in own - called if _tensorial(op)}


def _tensorial(op: Any) -> bool:
    """Not what every Python object has."""
    return "object" not in _title(op) and not isinstance(op, torch.dtype)


def check(op: Any, call: Example, primals: int, tangents: int) -> None:
    """The op on stacked duals: primal rows bitwise the plain op's, tangents those of forward AD."""
    own = {True: Inputs(call, primals, tangents), False: Inputs(call, primals, 0)}
    given = own[True]
    with torch.no_grad(), counted() as met:
        out = given.called(op, given.dual)
    assert bool(met) == call.fallback, met
    plain = [tree_flatten(inputs.called(op, inputs.plain))[0] for inputs in own.values()]
    sides = [
        jvp(
            lambda moving, j=j: given.called(op, lambda k, v: moving[k] if v.moves else given.at(k, j)),
            *given.pair(j),
        )
        for j in range(tangents)
    ]
    wanted = [tree_flatten(side)[0] for _, side in sides]
    found = tree_flatten(out)[0]
    assert len(found) == len(plain[0]) > 0
    for k, value in enumerate(found):
        if not isinstance(value, Tensor):
            assert value == plain[0][k]
        elif not is_dual(value):
            assert same(value, plain[0][k])
            assert not any(w[k].is_floating_point() and w[k].any() for w in wanted)
        else:
            compare(value, [p[k] for p in plain], [w[k] for w in wanted], primals, tangents)


def same(a: Tensor, b: Tensor) -> bool:
    """Bitwise, NaN beside NaN."""
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())


def compare(value: Any, plain: list[Tensor], wanted: list[Tensor], p: int, t: int) -> None:
    """A result: its primal rows beside the plain op's for as many rows or the primal ones alone."""
    assert (value.primals, value.tangents) == (p, t)
    rows = raw(value).chunk(p + t, value.axis)
    exact = torch.cat(rows[:p], value.axis)
    size = exact.shape[value.axis]
    assert any(same(exact, v.narrow(value.axis, 0, size)) for v in plain), "primal rows differ"
    for row, side in zip(rows[p:], wanted, strict=True):
        assert row.dtype == exact.dtype
        torch.testing.assert_close(row, side, rtol=1e-10, atol=1e-12)


class Inputs:
    """The arguments of a call: blocks of every Moves and Rows, from a seed of its own."""

    def __init__(self, call: Example, primals: int, tangents: int) -> None:
        self.call, self.primals, self.tangents = call, primals, tangents
        leaves = tree_flatten((call.args, call.kwargs))[0]
        self.leaves = [v for v in leaves if isinstance(v, Rows)]
        self.blocks = [self._noise(k, "p", primals) for k in range(len(self.leaves))]
        self.sides = [self._noise(k, "t", tangents) for k in range(len(self.leaves))]

    def _noise(self, k: int, word: str, count: int) -> list[Tensor]:
        found, leaf = [], self.leaves[k]
        for n in range(count):
            g = torch.Generator().manual_seed(zlib.crc32(f"{word}{k}{n}".encode()))
            noise = torch.randn(leaf.shape, dtype=torch.float64, generator=g)
            found.append(leaf.made(noise) if word == "p" else noise)
        return found

    def at(self, k: int, j: int) -> Tensor:
        """A constant's rows beside a tangent."""
        return self.blocks[k][-1]

    def pair(self, j: int) -> tuple[Any, Any]:
        """(source, tangent j) of everything that moves."""
        moving = {k for k, leaf in enumerate(self.leaves) if leaf.moves}
        return {k: self.blocks[k][-1] for k in moving}, {k: self.sides[k][j] for k in moving}

    def plain(self, k: int, leaf: Rows) -> Tensor:
        """All rows, the source's where the tangents are."""
        return torch.cat(self.blocks[k] + self.blocks[k][-1:] * self.tangents, self.call.axis)

    def dual(self, k: int, leaf: Rows) -> Tensor:
        """What the network sees."""
        if not leaf.moves:
            return self.plain(k, leaf)
        rows = torch.cat(self.blocks[k] + self.sides[k], self.call.axis)
        return rows.as_subclass(kind(self.primals, self.tangents, self.call.axis))

    def called(self, op: Any, value: Callable[[int, Rows], Tensor]) -> Any:
        """The op's result; of an op that writes, the tensor written."""
        order = iter(range(len(self.leaves)))
        args, kwargs = tree_map(
            lambda v: value(next(order), v).clone() if isinstance(v, Rows) else v,
            (self.call.args, self.call.kwargs),
        )
        if not _writes(op):
            return op(*args, **kwargs)
        target = args[0]
        result = op(*args, **kwargs)
        assert result is None or result is target or not is_dual(target)
        return target


def _writes(op: Any) -> bool:
    name = str(getattr(op, "__name__", ""))
    inside = name.endswith("_") and not name.endswith("__")
    return inside or name.startswith("__i") and name not in ("__index__", "__int__", "__invert__", "__iter__") or name == "__setitem__"
