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

from ..errors import out_of_memory
from .refusals import name_of, refuse
from .rules.rows import joined
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
    """`op` without a rule, where its schema and its results say that rows stay apart."""
    known = _known(op)
    if known is not None:
        return RULES[known](known, *args, **kwargs)
    _noted(op)
    flat, spec = tree_flatten((args, kwargs))
    duals = [value for value in flat if is_dual(value)]
    x = max(duals, key=lambda value: value.dim())
    back = x.axis - x.dim()
    if not all(same(x, v) and v.axis - v.dim() == back for v in duals):
        refuse(op, "has no rule, and joins stacked tensors of different layouts")
    if kwargs.get("out") is not None or (_writes(op) and not is_dual(flat[0])):
        refuse(op, "writes into a tensor that was made without the batch")
    if _along(op, args, kwargs, x):
        refuse(op, "has no rule, and works along the batch")

    def call(values: list[Any]) -> Any:
        given, named = tree_unflatten(values, spec)
        try:
            return op(*given, **named)
        except Exception as error:
            if out_of_memory(error):
                raise
            text = (str(error).splitlines() or [type(error).__name__])[0]
            refuse(op, f"has no rule, and fails by itself ({text})")

    with torch.inference_mode(False):
        writes = _writes(op) or bool(kwargs.get("inplace"))
        own = [_primal(value, x, writes) for value in flat]
        before = [_version(value) for value in own]
        rows, form = tree_flatten(call(own))
        pairs, written = _differentiated(op, call, flat, x)
    for k, value in enumerate(flat):
        if is_dual(value) and _version(own[k]) != before[k]:  # written into
            if own[k]._base is not None:
                refuse(op, "has no rule, and writes into its argument")
            found = _gathered(op, value, own[k], *written[k])
            value.view(value.shape).copy_(found.view(found.shape))
    places = {id(at): value for at, value in zip(own, flat, strict=True) if is_dual(value)}
    made = [
        places[id(row)] if id(row) in places else _gathered(op, x, row, *pair)
        for row, pair in zip(rows, pairs, strict=True)
    ]
    if not writes and any(isinstance(row, Tensor) and _within(row, duals) for row in rows):
        # Views of all rows: what is written into them is written into their tensor.
        whole = tree_flatten(call([v.view(v.shape) if is_dual(v) else v for v in flat]))[0]
        made = [wrap(v, x, m.axis) if is_dual(m) else m for v, m in zip(whole, made, strict=True)]
    return tree_unflatten(made, form)


def _version(value: Any) -> int:
    counted = isinstance(value, Tensor) and not value.is_inference()
    return value._version if counted else 0


def _within(row: Tensor, duals: list[Any]) -> bool:
    """Whether a result lies in the memory of a stacked dual."""
    return any(torch._C._is_alias_of(row, value) for value in duals)  # type: ignore[attr-defined]


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
        refuse(op, "has no rule, which torch.compile asks for")
    if _PASS.strict:
        refuse(op, "has no rule, and strict=True asks for one")
    if _PASS.counts is not None:
        _PASS.counts[name_of(op)] += 1


def _writes(op: Any) -> bool:
    name = name_of(op)
    return name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))


def _place(value: Any, x: Any) -> int | None:
    """The dimension of an argument that runs along x's stack; None = it has no such rows."""
    if not isinstance(value, Tensor):
        return None
    place = int(x.axis - x.dim() + value.dim())
    return place if place >= 0 and value.shape[place] == x.shape[x.axis] else None


def _primal(value: Any, x: Any, writes: bool) -> Any:
    """An argument's primal rows; of a stacked dual that is written into a copy."""
    place = _place(value, x)
    if place is None:
        return value
    rows = value.narrow(place, 0, edges(x, x.shape[x.axis])[1])
    return rows.clone() if is_dual(value) and writes else rows


def _beside(value: Any, x: Any) -> Any:
    """An argument's rows beside the tangents, and as many of its first row as `_spare` says."""
    place = _place(value, x)
    if place is None:
        return value
    start, end = edges(x, x.shape[x.axis])
    rows = copied(value.narrow(place, start, end - start), x, place)
    first = value.narrow(place, 0, 1)
    return torch.cat([rows, *[first] * _spare(x)], place)


def _spare(x: Any) -> int:
    """Rows added where the tangents are as many as the primal rows: a result's shape then says
    where the batch is."""
    start, end = edges(x, x.shape[x.axis])
    return end - start if x.shape[x.axis] == 2 * end else 0


def _differentiated(
    op: Any, call: Callable[[list[Any]], Any], flat: list[Any], x: Any
) -> tuple[list[Any], list[Any]]:
    """(value, tangent) of the op's results for the source, and of its arguments after the call;
    without a tangent (value, None)."""
    # A script's calls are out of sight: the process's switch is all there is for its attention.
    scripted = isinstance(op, torch._C.ScriptMethod | torch._C.ScriptFunction)
    attention = sdpa_kernel(SDPBackend.MATH) if scripted else nullcontext()
    with _TURN, attention, fwAD._set_fwd_grad_enabled(True):
        if fwAD._current_level >= 0:
            refuse(op, "has no rule, and this process is inside a forward derivative already")
        with fwAD.dual_level():
            values = [_along_tangents(value, x) for value in flat]
            made = tree_flatten(call(values))[0]
            found, written = (
                [fwAD.unpack_dual(v) if isinstance(v, Tensor) else (v, None) for v in listed]
                for listed in (made, values)
            )
    return [tuple(pair) for pair in found], [tuple(pair) for pair in written]


def _along_tangents(value: Any, x: Any) -> Any:
    rows = _beside(value, x)
    if not is_dual(value):
        return rows
    t = torch.zeros_like(rows)
    moving = tangent(value)
    t.narrow(value.axis, 0, moving.shape[value.axis]).copy_(moving)
    return fwAD.make_dual(rows, t)


def _gathered(op: Any, x: Any, row: Any, beside: Any, t: Any) -> Any:
    """One result, of the primal rows and of those beside the tangents."""
    if not isinstance(row, Tensor):
        refuse(op, "has no rule, and gives something else than tensors")
    axis, size = _axis(op, x, row, beside)
    beside = beside.narrow(axis, 0, size)
    _apart(op, x, row, beside, axis)
    if not row.is_floating_point() and not row.is_complex():
        return torch.cat([row, beside], axis)
    if t is None:
        refuse(op, "has no rule, and loses its tangent in PyTorch's forward mode")
    return joined(x, row, t.narrow(axis, 0, size), axis)


def _axis(op: Any, x: Any, row: Tensor, beside: Tensor) -> tuple[int, int]:
    """The dimension of a result that holds the stack, and its size for the tangents."""
    size, end = x.shape[x.axis], edges(x, x.shape[x.axis])[1]
    pairs = list(zip(row.shape, beside.shape, strict=False))
    moved = [(dim, pair) for dim, pair in enumerate(pairs) if pair[0] != pair[1]]
    if len(moved) == 1 and moved[0][1] == (end, size - end + _spare(x)):
        return moved[0][0], size - end
    refuse(op, "has no rule, and does not say where the batch went")


def _apart(op: Any, x: Any, row: Tensor, beside: Tensor, axis: int) -> None:
    """Refuse results that are others for the source's rows alone than among the primal rows."""
    captured = row.is_cuda and torch.cuda.is_current_stream_capturing()
    if type(row) is not Tensor or row.is_meta or captured:
        return  # nothing to be compared
    count = row.shape[axis] // x.primals * x.sources
    wanted = copied(row.narrow(axis, row.shape[axis] - count, count), x, axis)
    if not wanted.is_floating_point() and not wanted.is_complex():
        alike = torch.equal(wanted, beside)
    else:
        rtol = torch.finfo(wanted.dtype).eps ** 0.4
        most = wanted.abs().nan_to_num(0, 0, 0).amax() if wanted.numel() else 0
        alike = torch.allclose(wanted, beside, rtol, rtol * float(most), equal_nan=True)
    if not alike:
        refuse(op, "has no rule, and gives rows that depend on other rows, or on chance")


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
