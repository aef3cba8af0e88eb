"""An op without a rule: its primal rows as they are, its tangents by PyTorch's forward AD of this
one op, and every such call is counted."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_flatten, tree_unflatten

from .refusals import name_of, refuse
from .tensor import RULES, copied, edges, is_dual, same, tangent, wrap

__all__ = ["Pass", "counted", "fallback"]

_TURN = threading.RLock()  # a dual level is one for the whole process


class Pass(threading.local):
    """What this thread's passes met."""

    def __init__(self) -> None:
        self.counts: Counter[str] | None = None
        self.strict = False


_PASS = Pass()


@contextmanager
def counted(strict: bool = False) -> Iterator[Counter[str]]:
    """Context of a pass; yields how often each op without a rule was met. `strict` refuses them."""
    before = _PASS.counts, _PASS.strict
    _PASS.counts, _PASS.strict = Counter(), strict
    try:
        yield _PASS.counts
    finally:
        _PASS.counts, _PASS.strict = before


def fallback(op: Any, *args: Any, **kwargs: Any) -> Any:
    """`op` without a rule, where its schema and its result say that rows stay apart."""
    known = _known(op)
    if known is not None:
        return RULES[known](known, *args, **kwargs)
    flat, spec = tree_flatten((args, kwargs))
    duals = [value for value in flat if is_dual(value)]
    x = max(duals, key=lambda value: value.dim())
    _noted(op)
    back = x.axis - x.dim()
    if not all(same(x, v) and v.axis - v.dim() == back for v in duals):
        refuse(op, "has no rule, and joins stacked tensors of different layouts")
    if kwargs.get("out") is not None:
        refuse(op, "writes into a tensor that was made without the batch")
    if _along(op, args, kwargs, x):
        refuse(op, "has no rule, and works along the batch")

    def call(values: list[Any]) -> Any:
        given, named = tree_unflatten(values, spec)
        return op(*given, **named)

    rows = call([_cut(value, x, 0) for value in flat])
    beside = [_cut(value, x, 1) for value in flat]
    primals, tangents = _differentiated(op, call, beside, flat)
    return _gathered(op, x, rows, primals, tangents)


def _known(op: Any) -> Any:
    """The function with a rule that an op of `torch.ops.aten` is."""
    if not isinstance(op, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        return None
    space, _, name = str(op).partition(".")
    name = name.partition(".")[0]
    found = [getattr(home, name, None) for home in (torch, torch._C._nn)]
    return next((f for f in found if space == "aten" and f is not None and f in RULES), None)


def _noted(op: Any) -> None:
    if torch.compiler.is_compiling():
        return
    if _PASS.strict:
        refuse(op, "has no rule, and strict=True asks for one")
    if _PASS.counts is not None:
        _PASS.counts[name_of(op)] += 1


def _cut(value: Any, x: Any, which: int) -> Any:
    """An argument's rows: 0 the primal ones, 1 those beside the tangents."""
    if not isinstance(value, Tensor):
        return value
    place = x.axis - x.dim() + value.dim()
    if place < 0 or value.shape[place] != x.shape[x.axis]:
        return value
    start, end = edges(x, x.shape[x.axis])
    if which == 0:
        return value.narrow(place, 0, end)
    return copied(value.narrow(place, start, end - start), x, place)


def _differentiated(
    op: Any, call: Callable[[list[Any]], Any], beside: list[Any], flat: list[Any]
) -> tuple[list[Any], list[Any]]:
    """The op's results for the source, and their tangents (None: it has none)."""
    # A script's calls are out of sight: the process's switch is all there is for its attention.
    scripted = isinstance(op, torch._C.ScriptMethod | torch._C.ScriptFunction)
    attention = sdpa_kernel(SDPBackend.MATH) if scripted else nullcontext()
    with _TURN, attention, torch.inference_mode(False), fwAD._set_fwd_grad_enabled(True):
        if fwAD._current_level >= 0:
            refuse(op, "has no rule, and this process is inside a forward derivative already")
        with fwAD.dual_level():
            values = [
                fwAD.make_dual(at.clone(), tangent(value).clone()) if is_dual(value) else at
                for at, value in zip(beside, flat, strict=True)
            ]
            try:
                made = tree_flatten(call(values))[0]
            except NotImplementedError as error:
                refuse(op, f"has no rule here, and none in PyTorch ({str(error).splitlines()[0]})")
            pairs = [fwAD.unpack_dual(v) if isinstance(v, Tensor) else (v, None) for v in made]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _gathered(op: Any, x: Any, rows: Any, primals: list[Any], tangents: list[Any]) -> Any:
    found, spec = tree_flatten(rows)
    out = []
    for row, primal, t in zip(found, primals, tangents, strict=True):
        if not isinstance(row, Tensor):
            refuse(op, "has no rule, and gives something else than tensors")
        axis = _axis(op, x, row, primal)
        if not row.is_floating_point() and not row.is_complex():
            out.append(torch.cat([row, primal], axis))
            continue
        if t is None:
            refuse(op, "has no rule, and loses its tangent in PyTorch's forward mode")
        out.append(wrap(torch.cat([row, t], axis), x, axis))
    return tree_unflatten(out, spec)


def _axis(op: Any, x: Any, rows: Tensor, beside: Tensor) -> int:
    """The dimension of a result that holds the stack."""
    end = edges(x, x.shape[x.axis])[1]
    wanted = end, x.shape[x.axis] - end
    fits = [
        dim for dim, pair in enumerate(zip(rows.shape, beside.shape, strict=True)) if pair == wanted
    ]
    others = [pair for pair in zip(rows.shape, beside.shape, strict=True) if pair[0] != pair[1]]
    if wanted[0] == wanted[1]:
        place = x.axis - x.dim() + rows.dim()
        for dim in (x.axis, place):
            if dim in fits:
                return dim
    elif len(fits) == 1 and len(others) == 1:
        return fits[0]
    refuse(op, "has no rule, and does not say where the batch went")


def _along(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], x: Any) -> bool:
    """Whether the op is told, or left by default, to work along the stacking dimension."""
    packet = getattr(torch.ops.aten, name_of(op).partition(".")[0], None)
    if packet is None:
        return False
    for overload in packet.overloads():
        listed = getattr(packet, overload)._schema.arguments
        for place, argument in enumerate(listed):
            if argument.name not in ("dim", "dims"):
                continue
            given = kwargs.get(argument.name, args[place] if len(args) > place else None)
            if given is None and argument.has_default_value():
                given = argument.default_value
            dims = given if isinstance(given, list | tuple) else [given]
            if any(type(dim) is int and dim in (x.axis, x.axis - x.dim()) for dim in dims):
                return True
    return False


RULES[None] = fallback
