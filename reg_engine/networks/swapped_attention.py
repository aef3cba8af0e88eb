"""The attention calls of a network, handed to another function: in this thread, for a block."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .math_attention import math_attention

__all__ = ["Swapped"]

CALLS = (F.scaled_dot_product_attention, math_attention)
# what a plain nn.MultiheadAttention leaves at these values
PLAIN = {
    "bias_k": None,
    "bias_v": None,
    "add_zero_attn": False,
    "key_padding_mask": None,
    "attn_mask": None,
    "static_k": None,
    "static_v": None,
}


class Swapped(TorchFunctionMode):
    """Context in which PyTorch's attention calls run `swap` instead.

    Seen are scaled_dot_product_attention, our `math_attention`, and nn.MultiheadAttention without
    masks, whose attention weights are then None. A package's kernels are out of sight, and so is
    attention that is written out.

    Args:
        swap: called as swap(attention, query, key, value, ...) with (..., heads, tokens, width),
            where `attention` is what was called; returns its result.
    """

    def __init__(self, swap: Callable[..., Tensor]) -> None:
        super().__init__()
        self._swap = swap

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in CALLS:
            return self._swap(func, *args, **(kwargs or {}))
        if func is F.multi_head_attention_forward:
            bound = inspect.signature(func).bind(*args, **(kwargs or {}))
            bound.apply_defaults()
            given = bound.arguments
            if given["query"].dim() == 3 and all(given[k] is v for k, v in PLAIN.items()):
                return self._module(given), None
        return func(*args, **(kwargs or {}))

    def _module(self, given: dict[str, Any]) -> Tensor:
        """What nn.MultiheadAttention gives for (tokens, B, width), its middle swapped."""
        inputs = given["query"], given["key"], given["value"]
        bias = given["in_proj_bias"]
        biases = (None,) * 3 if bias is None else bias.chunk(3)
        if given["use_separate_proj_weight"]:
            weights = tuple(given[f"{name}_proj_weight"] for name in "qkv")
        else:
            weights = given["in_proj_weight"].chunk(3)
        heads = (
            F.linear(x, weight, bias).unflatten(-1, (given["num_heads"], -1)).permute(1, 2, 0, 3)
            for x, weight, bias in zip(inputs, weights, biases, strict=True)
        )
        mixed = self._swap(F.scaled_dot_product_attention, *heads).permute(2, 0, 1, 3).flatten(-2)
        return F.linear(mixed, given["out_proj_weight"], given["out_proj_bias"])
