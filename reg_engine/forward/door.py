"""Jacobian-vector products of networks, with the value, from one pass of stacked rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..errors import EstimatorError, InputError, RegEngineError, out_of_memory
from ..networks.sharing import as_it_was
from . import scripts
from .fallback import counted
from .tensor import is_dual, raw, stack

__all__ = ["Moving", "Product", "jvp", "passed", "rows_of", "scale_for"]

# What multiplies a tangent beside primal rows of the same size. A layer's bias is added to all rows
# and taken off the tangents: a large tangent loses nothing by that. float16 has no room for it.
SCALE = 64.0


def scale_for(dtype: torch.dtype) -> float:
    """How much larger than the primal a tangent is made, in a network that computes in `dtype`."""
    return 1.0 if dtype == torch.float16 else SCALE


def passed(call: Callable[[], Any], strict: bool = False) -> tuple[Any, Counter[str]]:
    """What `call` makes of stacked rows, as the network is (its blocks not compiled), and how often
    each op without a rule was met.

    Raises:
        EstimatorError: an op cannot serve stacked rows, or drops them.
        torch.OutOfMemoryError: as PyTorch raised it.
    """
    try:
        with torch.no_grad(), as_it_was(), scripts.asked(), counted(strict) as met:
            output = call()
    except RegEngineError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise EstimatorError(
            f"'jvp' cannot serve this network: {text} Use rectify='vjp', 'fd_batched' or 'fd'."
        ) from error
    return output, met


def rows_of(output: Any, like: Any) -> Tensor:
    """The rows that a network returned for stacked ones.

    Raises:
        EstimatorError: it did not return a stacked dual of the same blocks, stacked in front.
    """
    if not isinstance(output, Tensor):
        raise EstimatorError(
            f"'jvp' cannot serve this network: it returns a {type(output).__name__}, not one "
            "tensor. Give a function that takes the tensor out of it."
        )
    if not is_dual(output) or type(output) is not type(like) or len(output) != len(like):
        raise EstimatorError(
            "'jvp' cannot serve this network: it drops the tangent (numpy, a custom op or compiled "
            "code), or returns other rows than the batch's, in front. Use rectify='vjp', "
            "'fd_batched' or 'fd'."
        )
    return raw(output)


@dataclass(frozen=True)
class Moving:
    """An argument of `jvp` that moves too: its value and its tangent, two tensors (B, ...).

    MeanFlow and consistency models differentiate along (x, t) together: `jvp(net, x, v,
    Moving(t, torch.ones_like(t)))`.
    """

    value: Tensor
    tangent: Tensor

    def __post_init__(self) -> None:
        both = self.value, self.tangent
        if not all(isinstance(v, Tensor) for v in both) or both[0].shape != both[1].shape:
            raise InputError("Moving", "has no two tensors of one shape", "Give value and tangent")


@dataclass(frozen=True)
class Product:
    """What `jvp` returns; unpacks as (value, tangent).

    Attributes:
        value: module(x, *args, **kwargs), (B, ...).
        tangent: its derivative along the tangent, of the same shape.
        fallbacks: how often each op without a rule was met; their tangents are right, and slower.
    """

    value: Tensor
    tangent: Tensor
    fallbacks: dict[str, int]

    def __iter__(self) -> Any:
        return iter((self.value, self.tangent))


def jvp(
    module: Callable[..., Any],
    x: Tensor,
    tangent: Tensor,
    *args: Any,
    strict: bool = False,
    shared: Sequence[str] = (),
    **kwargs: Any,
) -> Product:
    """The value of a network and its Jacobian times a vector, from one pass.

    Every linear layer and convolution runs once, for values and tangents together; fused attention
    has its tangent beside it. Nothing is recorded, and forward AD is not used.

    Args:
        module: called as module(x, *args, **kwargs); treats the rows of a batch independently and
            returns one tensor with the batch in front. It is called in its own mode: put it in
            evaluation mode.
        x: (B, ...), floating.
        tangent: the vector, of x's shape, dtype and device.
        *args, **kwargs: the other arguments. A tensor among them, also inside lists and dicts,
            whose first dimension is B belongs to the rows and is repeated for the tangents. A
            `Moving` has a tangent of its own.
        strict: refuse ops without a rule instead of differentiating each by PyTorch's forward AD.
        shared: names of keyword arguments that have no rows, though their first dimension is B.

    Returns:
        A Product: (value, tangent), detached.

    Raises:
        InputError: x and tangent do not fit.
        EstimatorError: an op mixes rows or cannot be differentiated; op and module are named.
    """
    _checked(x, tangent)
    size = _size(x, tangent)
    moving = stack([x], [tangent * size])

    def doubled(value: Any) -> Any:
        if isinstance(value, Moving):
            return stack([value.value], [value.tangent * size.to(value.tangent.dtype)])
        rows = isinstance(value, Tensor) and value.dim() > 0 and len(value) == len(x)
        return torch.cat([value, value]) if rows else value

    own = {name: kwargs[name] for name in shared if name in kwargs}
    rest = {name: value for name, value in kwargs.items() if name not in own}
    given, named = (
        tree_map(doubled, value, is_leaf=lambda v: isinstance(v, Moving)) for value in (args, rest)
    )
    output, met = passed(lambda: module(moving, *given, **named, **own), strict)
    value, product = rows_of(output, moving).chunk(2)
    return Product(value, product / size.to(product.dtype), dict(met))


def _checked(x: Any, tangent: Any) -> None:
    for name, value in (("x", x), ("tangent", tangent)):
        if not isinstance(value, Tensor) or not value.is_floating_point() or not value.dim():
            raise InputError(name, "is no floating tensor with a batch", "Give (B, ...)")
    if x.shape != tangent.shape or x.dtype != tangent.dtype or x.device != tangent.device:
        raise InputError(
            "tangent",
            f"is {tuple(tangent.shape)} {tangent.dtype} on {tangent.device} beside x of "
            f"{tuple(x.shape)} {x.dtype} on {x.device}",
            "Give a tensor like x",
        )


def _size(x: Tensor, tangent: Tensor) -> Tensor:
    """What the tangent is multiplied by, so that it is as large as the network's rows ask for."""
    state, size = (v.detach().double().square().mean().sqrt() for v in (x, tangent))
    wanted = scale_for(x.dtype) * torch.where(state > 0, state, 1.0)
    return torch.where(size > 0, wanted / size, 1.0).to(x.dtype)
