"""What has no derivative: questions about a tensor, comparisons, new tensors, choices by a mask;
and writing into a tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..axes import indexed, kept
from ..refusals import refuse
from ..tensor import RULES, is_dual, parts, primal, tangent, wrap
from .rows import aligned, held, into, joined, latest, lifted, plain, taken
from .table import getters, named, rule

__all__: list[str] = []


def asked(op: Any, *args: Any, **kwargs: Any) -> Any:
    """A question that the rows as they are can answer."""
    return op(*(plain(value) for value in args), **kwargs)


PROPERTIES = (
    "shape ndim dtype device layout requires_grad is_leaf grad_fn grad names itemsize nbytes "
    "is_cuda is_meta is_xpu is_mps is_quantized is_sparse is_sparse_csr is_nested is_mkldnn is_cpu "
    "is_ipu is_xla is_maia is_mtia is_vulkan retains_grad output_nr _version"
)
for _getter in getters(" ".join(n for n in PROPERTIES.split() if hasattr(Tensor, n))):
    RULES[_getter] = asked
rule(
    "size dim ndimension numel nelement stride is_contiguous is_floating_point is_complex "
    "is_signed element_size get_device storage_offset is_inference is_same_size is_conj is_neg "
    "has_names __len__ __hash__ __repr__ __format__ result_type can_cast is_pinned is_shared",
    homes=(torch, Tensor),
)(asked)


@rule("requires_grad_ share_memory_ pin_memory")
def untouched(op: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    return x


@rule(
    "__eq__ __ne__ __lt__ __le__ __gt__ __ge__ eq ne lt le gt ge equal isnan isinf isfinite "
    "isclose allclose sign sgn signbit floor ceil round trunc fix logical_not logical_and "
    "logical_or logical_xor floor_divide __floordiv__ __rfloordiv__ bucketize searchsorted "
    "heaviside long int short char byte bool"
)
def stepped(op: Any, *args: Any, **kwargs: Any) -> Any:
    """A constant nearly everywhere: the source's own rows stand where its tangents are."""
    return op(*(held(value) for value in args), **{k: held(v) for k, v in kwargs.items()})


@rule("argmax argmin argsort count_nonzero")
def counted(op: Any, x: Any, dim: Any = None, *args: Any, **kwargs: Any) -> Any:
    """As `stepped`, along dimensions that are not the batch's."""
    place = -1 if dim is None and op.__name__ == "argsort" else dim
    kept(op, x.axis, x.dim(), place)
    return op(held(x), place, *args, **kwargs)


@rule("rand_like randn_like randint_like bernoulli multinomial")
def drawn(op: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Noise, drawn for the primal rows as the network by itself draws it; the tangents see their
    source's."""
    rows = op(primal(x), *args, **kwargs)
    return torch.cat([rows, latest(rows, x)], x.axis)


@rule("dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout")
def dropout(
    op: Any, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Any:
    if not training or p == 0:
        return input
    if "alpha" in op.__name__:
        return RULES[None](op, input, p, training, inplace)
    rows = op(torch.ones_like(primal(input)), p, True)
    found = wrap(input * torch.cat([rows, latest(rows, input)], input.axis), input)
    return into(input, found) if inplace else found


@rule(
    "item tolist numpy __array__ __bool__ __float__ __int__ __index__ __contains__ __complex__ "
    "data_ptr untyped_storage storage __dlpack__ __reduce_ex__ backward set_ bernoulli_ "
    "normal_ uniform_ random_ exponential_ log_normal_ cauchy_ geometric_ poisson"
)
def refused(op: Any, *args: Any, **kwargs: Any) -> Any:
    refuse(op, "reads numbers out of the batch, or fills it with others")


@rule("zeros_like ones_like full_like empty_like")
def made_like(op: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    """A stacked dual, so that parts of it can be written into it."""
    rows = op(x, *args, **kwargs)
    if not rows.is_floating_point():
        return rows
    made = wrap(rows, x)
    tangent(made).zero_()
    return made


@rule("new_zeros new_ones new_empty new_full new_tensor", homes=(Tensor,))
def made(op: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    if any(is_dual(value) for value in (*args, *kwargs.values())):
        refuse(op, "copies numbers without their tangent")
    rows = op(x, *args, **kwargs)
    fits = rows.dim() > x.axis and rows.shape[x.axis] == x.shape[x.axis]
    if not fits or not rows.is_floating_point():
        return rows
    found = wrap(rows, x)
    tangent(found).zero_()
    return found


@rule("where")
def where(op: Any, condition: Any, *values: Any) -> Any:
    """Linear in both values; the condition is a constant."""
    if op in _METHODS:  # x.where(condition, y)
        condition, values = values[0], (condition, *values[1:])
    if is_dual(condition) or len(values) != 2:
        refuse(op, "chooses by a tensor with a tangent")
    one, two = values
    x = one if is_dual(one) else two
    if is_dual(one) and is_dual(two):
        aligned(op, one, two)
    shapes = [v.shape for v in (condition, one, two) if isinstance(v, Tensor)]
    whole = torch.broadcast_shapes(*shapes)
    sides = [v if is_dual(v) else lifted(v, x, whole) for v in values]
    rows = torch.where(condition, sides[0], sides[1])
    return wrap(rows, x, x.axis - x.dim() + rows.dim())


_METHODS = set(named("where", homes=(Tensor,)))


@rule("masked_fill")
def masked_fill(op: Any, x: Any, mask: Any, value: Any) -> Any:
    if is_dual(mask) or is_dual(value) or not is_dual(x):
        refuse(op, "fills with a tensor that has a tangent")
    rows, _, t = parts(x)
    found = torch.masked_fill(rows, taken(mask, x), value)
    axis = x.axis - x.dim() + found.dim()
    return joined(x, found, torch.masked_fill(t, taken(mask, x, tangents=True), 0), axis)


@rule("copy_")
def copy(op: Any, x: Any, value: Any, *args: Any) -> Any:
    if not is_dual(x):
        refuse(op, "writes a tangent into a tensor that was made without the batch")
    return into(x, value if is_dual(value) else lifted(value, x))


@rule("fill_")
def fill(op: Any, x: Any, value: Any) -> Any:
    return copy(op, x, value)


@rule("zero_")
def zero(op: Any, x: Any) -> Any:
    return copy(op, x, 0.0)


@rule("__setitem__", homes=(Tensor,))
def setitem(op: Any, x: Any, index: Any, value: Any) -> None:
    if not is_dual(x):
        refuse(op, "writes a tangent into a tensor that was made without the batch")
    masked = isinstance(index, Tensor) and index.dtype == torch.bool
    if masked and not (isinstance(value, Tensor) and value.dim()):
        into(x, masked_fill(op, x, index[(..., *[None] * (x.dim() - index.dim()))], value))
        return
    rows = x.view(x.shape)
    region = wrap(rows[index], x, indexed(op, x.shape, x.axis, index))
    if is_dual(value):
        aligned(op, region, value)
    rows[index] = plain(value if is_dual(value) else lifted(value, region))


@rule("t_ transpose_ swapaxes_ swapdims_ squeeze_ unsqueeze_ resize_as_ resize_", homes=(Tensor,))
def turned(op: Any, *args: Any, **kwargs: Any) -> Any:
    refuse(op, "changes the shape of a tensor in place")


def in_place() -> None:
    """Enter the in-place twin of every op that has a rule; last, when all are there."""
    for name in dir(Tensor):
        twin = getattr(Tensor, name)
        base = f"__{name[3:]}" if name.startswith("__i") else name.removesuffix("_")
        plain_op = getattr(Tensor, base, None)
        writes = name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))
        if writes and twin not in RULES and plain_op is not twin and plain_op in RULES:
            RULES[twin] = _writing(RULES[plain_op], plain_op)


def _writing(function: Any, base: Any) -> Any:
    def apply(op: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_dual(x):
            refuse(op, "writes a tangent into a tensor that was made without the batch")
        found = function(base, x, *args, **kwargs)
        return into(x, found if is_dual(found) else lifted(found, x))

    return apply
