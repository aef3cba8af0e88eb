"""The oracle of forward mode: PyTorch's own forward AD, through ops that have a rule for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from reg_engine.networks.math_attention import math_attention

__all__ = ["jvp"]


def jvp(function: Callable[[Tensor], Tensor], x: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
    """(function(x), its derivative along the tangent)."""
    with _Ruled():
        value, product = torch.func.jvp(function, (x,), (tangent,))
    return value, product


class _Ruled(TorchFunctionMode):
    """Swaps calls without a forward rule for the same in ops that have one.

    PyTorch's attention modules leave their fused inference path by themselves under such a mode.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(getattr(func, "__name__", "")).partition(".")[0]  # of an overload: its op
        return _SWAPS.get(name, _call)(func, *args, **(kwargs or {}))


def _call(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return func(*args, **kwargs)


def _norm(func: Callable[..., Any], input: Tensor, *args: Any, **kwargs: Any) -> Any:
    # Beside weights of another dtype the rules lose the input's: all in the wider one.
    weights = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    wide = reduce(torch.promote_types, (w.dtype for w in weights), input.dtype)
    return func(input.to(wide), *args, **kwargs).to(input.dtype)


def _group_norm(func: Callable[..., Any], input: Tensor, *args: Any, **kwargs: Any) -> Any:
    return _norm(func, input.contiguous(), *args, **kwargs)  # its rule views the input as rows


def _attention(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return math_attention(*args, **kwargs)


def _module_attention(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    # What this function calls is out of the mode's sight. It has a path of plain products, which it
    # takes where the weights are asked for.
    bound = inspect.signature(func).bind(*args, **kwargs)
    bound.apply_defaults()
    asked = bound.arguments["need_weights"]
    plain = asked or not bound.arguments["is_causal"] or bound.arguments["attn_mask"] is not None
    bound.arguments["need_weights"] = plain
    output, weights = func(*bound.args, **bound.kwargs)
    return output, weights if asked else None


_SWAPS: dict[str, Callable[..., Any]] = {
    "group_norm": _group_norm,
    "layer_norm": _norm,
    "batch_norm": _norm,
    "instance_norm": _norm,
    "scaled_dot_product_attention": _attention,
    "multi_head_attention_forward": _module_attention,
}
