"""Views and copies, and ops that gather or join: all rows are alike to them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..axes import indexed, kept, permuted, reduced, reshaped, unsqueezed
from ..refusals import refuse
from ..tensor import RULES, edges, is_dual, same, units, wrap
from .rows import held, lifted, plain
from .table import getters, rule

__all__: list[str] = []


@rule(
    "clone contiguous neg negative __neg__ positive __pos__ conj resolve_conj resolve_neg detach "
    "view_as_real view_as_complex real imag"
)
def alike(op: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Every dimension stays. `detach` too: what is asked for is the derivative of the function that
    the network is, whichever way its authors trained it."""
    return wrap(op(x, *args, **kwargs), x)


for _getter in getters("data real imag"):
    RULES[_getter] = alike


@rule("to float double half bfloat16 type type_as cuda cpu", homes=(Tensor,))
def converted(op: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    given = [plain(value) for value in args]
    if not is_dual(x):  # made like a stacked dual
        return op(x, *given, **kwargs)
    rows = op(x, *given, **kwargs)
    if not isinstance(rows, Tensor):  # the name of a type
        return rows
    if rows.is_floating_point() or rows.is_complex():
        return wrap(rows, x)
    return op(held(x), *given, **kwargs)


@rule("reshape view view_as reshape_as flatten unflatten ravel")
def view(op: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    if not is_dual(x) or (args and isinstance(args[0], torch.dtype)):
        refuse(op, "takes another tensor's shape, or reads its memory otherwise")
    rows = op(x, *(plain(value) for value in args), **kwargs)
    return wrap(rows, x, reshaped(op, x.shape, x.axis, units(x), rows.shape))


@rule("transpose swapaxes swapdims")
def transpose(op: Any, x: Any, *dims: int, **kwargs: int) -> Any:
    one, two = (dim % x.dim() for dim in (*dims, *kwargs.values()))
    return wrap(torch.transpose(x, one, two), x, {one: two, two: one}.get(x.axis, x.axis))


@rule("t")
def turned(op: Any, x: Any) -> Any:
    return wrap(op(x), x, x.dim() - 1 - x.axis)


def _matrices(op: Any, x: Any) -> Any:
    return transpose(op, x, -2, -1)


for _getter in getters("T H"):
    RULES[_getter] = turned
for _getter in getters("mT mH"):
    RULES[_getter] = _matrices


@rule("permute")
def permute(op: Any, x: Any, *dims: Any, **kwargs: Any) -> Any:
    given = kwargs.get("dims", dims)
    order = given[0] if len(given) == 1 and not isinstance(given[0], int) else given
    return wrap(torch.permute(x, order), x, permuted(x.axis, order))


@rule("movedim moveaxis")
def movedim(op: Any, x: Any, source: Any, destination: Any) -> Any:
    ends = [(dims,) if isinstance(dims, int) else dims for dims in (source, destination)]
    moved = {two % x.dim(): one % x.dim() for one, two in zip(*ends, strict=True)}
    rest = iter([dim for dim in range(x.dim()) if dim not in moved.values()])
    order = [moved[place] if place in moved else next(rest) for place in range(x.dim())]
    return permute(op, x, order)


@rule("unsqueeze")
def unsqueeze(op: Any, x: Any, dim: int) -> Any:
    return wrap(op(x, dim), x, unsqueezed(x.axis, x.dim(), dim))


@rule("squeeze")
def squeeze(op: Any, x: Any, dim: Any = None) -> Any:
    dims = range(x.dim()) if dim is None else (dim,) if isinstance(dim, int) else dim
    gone = {place % x.dim() for place in dims if x.shape[place] == 1}
    rows = torch.squeeze(x) if dim is None else torch.squeeze(x, dim)
    return wrap(rows, x, reduced(x.axis, gone))


@rule("expand expand_as broadcast_to")
def expand(op: Any, x: Any, *sizes: Any, **kwargs: Any) -> Any:
    if not is_dual(x):  # a constant in the shape of a stacked dual
        return lifted(x, sizes[0])
    rows = op(x, *(plain(size) for size in sizes), **kwargs)
    return wrap(rows, x, x.axis - x.dim() + rows.dim())


@rule("repeat tile")
def repeat(op: Any, x: Any, *sizes: Any, **kwargs: Any) -> Any:
    given = (*sizes, *kwargs.values())
    counts = list(given[0] if len(given) == 1 and not isinstance(given[0], int) else given)
    counts = [1] * (x.dim() - len(counts)) + counts
    if counts[x.axis - x.dim()] != 1:
        refuse(op, "repeats the batch")
    return wrap(torch.Tensor.repeat(x, counts), x, x.axis - x.dim() + len(counts))


@rule("repeat_interleave")
def repeat_interleave(op: Any, x: Any, repeats: Any, dim: Any = None, **kwargs: Any) -> Any:
    """Along the batch too: every row is followed by its copies, and the blocks stay whole."""
    if dim is None or (dim % x.dim() == x.axis and not isinstance(repeats, int)):
        refuse(op, "repeats some rows of the batch more often than others")
    return wrap(torch.repeat_interleave(x, repeats, dim, **kwargs), x)


@rule("chunk split tensor_split split_with_sizes")
def split(op: Any, x: Any, *args: Any, dim: int = 0, **kwargs: Any) -> Any:
    place = args[1] if len(args) > 1 else dim
    if getattr(op, "__name__", "") == "chunk" and args[:1] == (1,):
        return (x,)  # the whole, along the batch too
    _apart(op, x, place)
    return tuple(wrap(rows, x) for rows in op(x, *args[:1], dim=place, **kwargs))


@rule("unbind")
def unbind(op: Any, x: Any, dim: int = 0) -> Any:
    axis = reduced(x.axis, _apart(op, x, dim))
    return tuple(wrap(rows, x, axis) for rows in torch.unbind(x, dim))


@rule("__iter__", homes=(Tensor,))
def iterate(op: Any, x: Any) -> Any:
    return iter(unbind(op, x, 0))


@rule("select")
def select(op: Any, x: Any, dim: int, index: int) -> Any:
    return wrap(op(x, dim, index), x, reduced(x.axis, _apart(op, x, dim)))


@rule("diff")
def diff(
    op: Any, x: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None
) -> Any:
    if prepend is not None or append is not None:  # constants, with no tangent of their own
        return RULES[None](op, x, n, dim, prepend, append)
    return along(op, x, dim=dim, n=n)


@rule("narrow index_select cumsum gather take_along_dim flip roll tril triu")
def along(op: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    """What keeps the dimensions and works along some of them."""
    if not is_dual(x):
        refuse(op, "looks up rows by a tensor with a tangent")
    kept(op, x.axis, x.dim(), _dims(getattr(op, "__name__", ""), args, kwargs))
    return wrap(op(x, *args, **kwargs), x)


def _dims(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if name in ("tril", "triu"):
        return (-2, -1)
    if name == "flip" and args and isinstance(args[0], int):
        return args
    place = 1 if name in ("roll", "take_along_dim") else 0
    return args[place] if len(args) > place else kwargs.get("dim", kwargs.get("dims"))


@rule("__getitem__", homes=(Tensor,))
def getitem(op: Any, x: Any, index: Any) -> Any:
    if not is_dual(x):
        refuse(op, "looks up rows by a tensor with a tangent")
    return wrap(op(x, index), x, indexed(op, x.shape, x.axis, index))


@rule("cat concat concatenate")
def cat(op: Any, tensors: Any, dim: int = 0, **kwargs: Any) -> Any:
    listed = [v for v in tensors if is_dual(v) or v.shape != (0,)]  # as PyTorch skips them
    x = next(tensor for tensor in listed if is_dual(tensor))
    dim = kwargs.get("axis", dim)
    if len(listed) > 1:  # else it is a copy, along the batch too
        kept(op, x.axis, x.dim(), dim)
    return wrap(torch.cat(_lifted(op, listed, x), dim), x)


@rule("stack")
def stacked(op: Any, tensors: Any, dim: int = 0) -> Any:
    listed = list(tensors)
    x = next(tensor for tensor in listed if is_dual(tensor))
    rows = torch.stack(_lifted(op, listed, x), dim)
    return wrap(rows, x, unsqueezed(x.axis, x.dim(), dim))


def _lifted(op: Any, tensors: list[Any], x: Any) -> list[Tensor]:
    for tensor in tensors:
        if is_dual(tensor) and not (same(tensor, x) and tensor.axis == x.axis):
            refuse(op, "joins stacked tensors of different layouts")
    return [v if is_dual(v) else lifted(v, x, v.shape) for v in tensors]


def _apart(op: Any, x: Any, dim: int) -> set[int]:
    """`dim`, which an op takes apart, is not the stacking dimension."""
    if dim % x.dim() == x.axis:
        refuse(op, "takes rows out of the batch")
    return {dim % x.dim()}


@rule("pad", homes=(F,))
def pad(op: Any, input: Any, pad: Any, mode: str = "constant", value: Any = None) -> Any:
    kept(op, input.axis, input.dim(), range(input.dim() - len(pad) // 2, input.dim()))
    rows = F.pad(input, pad, mode, value)
    if mode == "constant" and value:
        beside = edges(input, input.shape[input.axis])[1]
        exact = rows.narrow(input.axis, 0, beside)
        t = input.narrow(input.axis, beside, input.shape[input.axis] - beside)
        rows = torch.cat([exact, F.pad(t, pad)], input.axis)
    return wrap(rows, input)
