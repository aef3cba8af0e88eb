"""Attention by matmul, softmax, matmul: the one kernel with every derivative."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

__all__ = ["math_attention"]


def math_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """As F.scaled_dot_product_attention under `sdpa_kernel(MATH)`, for this call alone.

    The kernel switch is the process's, and another thread's rounding would change with it. A
    TorchFunctionMode sees the call, as it sees PyTorch's.
    """
    inputs = query, key, value
    if has_torch_function(inputs):
        result: Tensor = handle_torch_function(
            math_attention,
            inputs,
            *inputs,
            attn_mask=attn_mask,
            dropout_p=dropout_p,
            is_causal=is_causal,
            scale=scale,
            enable_gqa=enable_gqa,
        )
        return result
    device = query.device.type
    if torch.is_autocast_enabled(device):  # PyTorch casts the inputs, and computes without it
        dtype = torch.get_autocast_dtype(device)
        query, key, value = (x.to(dtype) for x in (query, key, value))
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.where(attn_mask, 0.0, -torch.inf)
    mask = None if attn_mask is None else attn_mask.to(query.dtype)
    with torch.autocast(device, enabled=False):
        result = torch.ops.aten._scaled_dot_product_attention_math(
            query, key, value, mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )[0]
    return result
