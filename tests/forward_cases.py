"""Calls of ops on stacked duals, beside the plain op and forward AD in float64."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from forward_ad import jvp
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from reg_engine.forward.fallback import counted
from reg_engine.forward.rules.table import HOMES
from reg_engine.forward.tensor import COMPOSITES, RULES, is_dual, kind, primal, tangent

__all__ = ["Moves", "Rows", "check_all", "example", "unvisited"]

# units of primal rows, units of those that are the source, tangents
BLOCKS = ((1, 1, 1), (2, 1, 1), (3, 2, 2))

SIGNS = "add sub mul pow floordiv truediv div setitem"
IN_PLACE = {f"__i{name}__" for name in SIGNS.split()} | {"__setitem__"}


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
    twin: bool = True
    still: bool = False  # has no tangent, and no rule in PyTorch that says so


Table = dict[str, list[tuple[Example, tuple[Any, ...]]]]


def example(
    table: Table,
    names: str,
    *args: Any,
    axis: int | tuple[int, ...] = 0,
    homes: tuple[Any, ...] = HOMES,
    fallback: bool = False,
    twin: bool = True,
    still: bool = False,
    **kwargs: Any,
) -> None:
    """Enter a call of the named ops, of each home that has it, for each axis; of the op that writes
    into its first argument too, unless `twin` is False."""
    for place in (axis,) if isinstance(axis, int) else axis:
        for name in names.split():
            entry = Example(args, kwargs, place, fallback, twin, still), homes
            table.setdefault(name, []).append(entry)


def _calls(table: Table) -> Iterator[tuple[Any, Example]]:
    for name, entries in table.items():
        for call, homes in entries:
            found = {op for op in (getattr(h, name, None) for h in homes) if _tensorial(op)}
            if call.twin and Tensor in homes and getattr(call.args[0], "moves", False):
                own = f"__i{name[2:]}" if name.startswith("__") else f"{name}_"
                found |= {op for op in [getattr(Tensor, own, None)] if op and op in RULES}
            yield from ((op, call) for op in sorted(found, key=_title))


def _title(op: Any) -> str:
    return f"{getattr(op, '__module__', '')}.{getattr(op, '__qualname__', op)}"


def check_all(table: Table, name: str) -> None:
    """Every call of a name in the table, by `check`."""
    for op, call in _calls({name: table[name]}):
        for layout in BLOCKS:
            try:
                check(op, call, *layout)
            except Exception as error:
                raise AssertionError(f"{_title(op)} {layout} {call}") from error


def unvisited(table: Table, module: str) -> set[str]:
    """Ops with a rule of `module` that no example of the table calls."""
    called = {op for op, _ in _calls(table)}
    own = {
        op
        for op, rule in [*RULES.items(), *COMPOSITES.items()]
        if _tensorial(op) and not isinstance(rule, partial) and _module(rule) == module
    }
    return {_title(op) for op in own - called}


def _module(rule: Any) -> str:
    """Where a rule is written, or that of the op whose twin writes in place."""
    base = inspect.getclosurevars(rule).nonlocals.get("function", rule)
    return str(base.__module__).rpartition(".")[2]


def _tensorial(op: Any) -> bool:
    """Not what every Python object has."""
    return callable(op) and "object" not in _title(op) and not isinstance(op, torch.dtype)


def check(op: Any, call: Example, primals: int, sources: int, tangents: int) -> None:
    """The op on stacked duals: primal rows bitwise the plain op's, tangents those of forward AD."""
    given = Inputs(call, primals, sources, tangents)
    with torch.no_grad(), counted() as met:
        out = given.called(op, given.dual)
    assert bool(met) == call.fallback, met
    plain = [tree_flatten(given.called(op, side))[0] for side in (given.all_rows, given.primal)]
    wanted = [tree_flatten(given.side(op, j))[0] for j in range(0 if call.still else tangents)]
    found = tree_flatten(out)[0]
    assert len(found) == len(plain[0]) > 0
    for k, value in enumerate(found):
        if not isinstance(value, Tensor):
            assert value == plain[0][k]
        elif not is_dual(value):
            assert same(value, plain[0][k])
            assert not any(w[k].is_floating_point() and w[k].any() for w in wanted)
        else:
            assert given.like(value)
            sides = [torch.zeros_like(given.sources[0])] * tangents if call.still else None
            compare(value, [p[k] for p in plain], sides or [w[k] for w in wanted])


def same(a: Tensor, b: Tensor) -> bool:
    """Bitwise, NaN beside NaN."""
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())


def compare(value: Any, plain: list[Tensor], wanted: list[Tensor]) -> None:
    """A result: its primal rows beside the plain op's for as many rows or the primal ones alone."""
    with torch._C.DisableTorchFunctionSubclass():
        exact, rows = primal(value), tangent(value).chunk(value.tangents, value.axis)
    size = exact.shape[value.axis]
    assert any(same(exact, v.narrow(value.axis, 0, size)) for v in plain), "primal rows differ"
    for row, side in zip(rows, wanted, strict=True):
        assert row.dtype == exact.dtype
        torch.testing.assert_close(row, side, rtol=1e-10, atol=1e-12)


class Inputs:
    """The arguments of a call: blocks of every Moves and Rows, from a seed of its own."""

    def __init__(self, call: Example, primals: int, sources: int, tangents: int) -> None:
        self.call, self.kind = call, kind(primals, tangents, call.axis, sources)
        self.layout, self.count = (primals, sources, tangents), tangents
        leaves = tree_flatten((call.args, call.kwargs))[0]
        self.leaves = [v for v in leaves if isinstance(v, Rows)]
        count = range(len(self.leaves))
        blocks = [self._noise(k, "p", primals) for k in count]
        sides = [self._noise(k, "t", tangents * sources) for k in count]
        self.rows, self.sides = (
            [torch.cat(v, call.axis) for v in both] for both in (blocks, sides)
        )
        self.sources = [torch.cat(v[-sources:], call.axis) for v in blocks]

    def _noise(self, k: int, word: str, count: int) -> list[Tensor]:
        found, leaf = [], self.leaves[k]
        for n in range(count):
            g = torch.Generator().manual_seed(zlib.crc32(f"{word}{k}{n}".encode()))
            noise = torch.randn(leaf.shape, dtype=torch.float64, generator=g)
            found.append(leaf.made(noise))
        return found

    def like(self, value: Any) -> bool:
        """Whether a stacked dual has the proportions of these inputs."""
        return (value.primals, value.sources, value.tangents) == self.layout

    def primal(self, k: int) -> Tensor:
        """The primal rows alone."""
        return self.rows[k]

    def all_rows(self, k: int) -> Tensor:
        """All rows, the source's where the tangents are."""
        return torch.cat([self.rows[k], *[self.sources[k]] * self.count], self.call.axis)

    def dual(self, k: int) -> Tensor:
        """What the network sees."""
        if not self.leaves[k].moves:
            return self.all_rows(k)
        return torch.cat([self.rows[k], self.sides[k]], self.call.axis).as_subclass(self.kind)

    def side(self, op: Any, j: int) -> Any:
        """What forward AD gives along tangent j."""
        moving = [k for k, leaf in enumerate(self.leaves) if leaf.moves]
        tangents = {k: self.sides[k].chunk(self.count, self.call.axis)[j] for k in moving}

        def function(own: Any) -> Any:
            return self.called(op, lambda k: own.get(k, self.sources[k]))

        return jvp(function, {k: self.sources[k] for k in moving}, tangents)[1]

    def called(self, op: Any, value: Callable[[int], Tensor]) -> Any:
        """The op's result; of an op that writes, the tensor written."""
        order = iter(range(len(self.leaves)))
        args, kwargs = tree_map(
            lambda v: value(next(order)).clone() if isinstance(v, Rows) else v,
            (self.call.args, self.call.kwargs),
        )
        result = op(*args, **kwargs)
        if not _writes(op):
            return result
        assert result is None or result is args[0] or not is_dual(args[0])
        return args[0]


def _writes(op: Any) -> bool:
    name = str(getattr(op, "__name__", ""))
    return name in IN_PLACE or (name.endswith("_") and not name.endswith("__"))
