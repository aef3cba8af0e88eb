"""Attention: the source and its tangents by ops.attention_dual; keys and values may be constant."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import ops
from ...networks.math_attention import math_attention
from ..refusals import refuse
from ..tensor import RULES, edges, is_dual, same, wrap
from .table import composite, rule

__all__: list[str] = []


@rule("scaled_dot_product_attention")
def attention(
    op: Any,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    given = (query, key, value)
    dual = next((v for v in given if is_dual(v)), None)
    options: dict[str, Any] = {"is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
    if dual is None or is_dual(attn_mask):  # a bias that depends on x
        return RULES[None](op, *given, attn_mask, dropout_p, **options)
    if dropout_p:
        refuse(op, "drops at random: put the network in evaluation mode")
    back = dual.axis - dual.dim()
    alike = all(same(v, dual) and v.axis - v.dim() == back for v in given if is_dual(v))
    if back >= -2 or not alike or (enable_gqa and back == -3):
        refuse(op, "attends over the batch, or joins different layouts")
    dtype = _computed(dual)
    q, k, v = (_rows(x.to(dtype), dual, back) for x in given)
    mask = None if attn_mask is None else _rows(attn_mask, dual, back, mask=True)
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(dtype)
    with torch.autocast(dual.device.type, enabled=False):
        rows = _attended(op, (q, k, v), mask, dual, [is_dual(x) for x in given], options)
    return _restored(rows, dual, back)


def _computed(x: Any) -> torch.dtype:
    """What attention computes in: autocast's dtype, if one is active."""
    device = x.device.type
    if x.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return x.dtype
    return torch.get_autocast_dtype(device)


def _rows(v: Tensor, dual: Any, back: int, mask: bool = False) -> Tensor:
    """As (rows, heads, tokens, width), the stack in front; a mask's first two may be 1."""
    v = v.view(v.shape)[(None,) * (dual.dim() - v.dim())]
    if not mask or dual.dim() > 4:
        outer = dual.shape[:-3] if dual.dim() > 3 and back < -3 else dual.shape[:-2]
        v = v.expand(*outer, *v.shape[len(outer) :])
    v = v.movedim(back, 0)
    return v.unsqueeze(1) if v.dim() == 3 else v.flatten(0, -4)


def _restored(rows: Tensor, dual: Any, back: int) -> Any:
    axis = dual.dim() + back
    if dual.dim() == 3:
        return wrap(rows.squeeze(1), dual, axis)
    if dual.dim() > 4:
        outer = [size for dim, size in enumerate(dual.shape[:-3]) if dim != axis]
        rows = rows.unflatten(0, (dual.shape[axis], *outer))
    return wrap(rows.movedim(0, axis), dual, axis)


def _attended(
    op: Any,
    given: tuple[Tensor, Tensor, Tensor],
    mask: Tensor | None,
    dual: Any,
    moving: list[bool],
    options: dict[str, Any],
) -> Tensor:
    """All rows: primal ones by the op, the last of them and the tangents by ops.attention_dual."""
    count = len(given[0])
    edge, end = edges(dual, count)

    def cut(start: int, stop: int) -> dict[str, Any]:
        own = mask[start:stop] if mask is not None and len(mask) == count else mask
        q, k, v = (rows[start:stop] for rows in given)
        return {"query": q, "key": k, "value": v, "attn_mask": own, **options}

    own = cut(edge, end)
    primal = own.pop("query"), own.pop("key"), own.pop("value")
    tangents = [rows[end:] if moves else None for rows, moves in zip(given, moving, strict=True)]
    if op is math_attention or torch.compiler.is_compiling():
        y, t = ops.attention_dual(*primal, *tangents, **own)
        if op is math_attention:
            return torch.cat([op(**cut(0, end)), t])
        return torch.cat([*([op(**cut(0, edge))] if edge else []), y, t])
    q, _, v = given
    out = q.new_empty(count, q.shape[2], q.shape[1], v.shape[3]).transpose(1, 2)
    if edge:
        out[:edge] = op(**cut(0, edge))
    ops.attention_dual(*primal, *tangents, **own, out=(out[edge:end], out[end:]))
    return out


RULES[math_attention] = attention


@composite("multi_head_attention_forward", homes=(F,))
def modules_attention(op: Any, *args: Any, **kwargs: Any) -> Any:
    """What nn.MultiheadAttention gives, by ops that have rules."""
    bound = inspect.signature(op).bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    batched, heads = given["query"].dim() == 3, given["num_heads"]
    if any(given[name] is not None for name in ("bias_k", "bias_v", "static_k", "static_v")):
        refuse(op, "adds keys of its own")
    if given["add_zero_attn"] or not batched or (given["training"] and given["dropout_p"]):
        refuse(op, "has no batch, adds a key, or drops at random")
    q, k, v = (x.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3) for x in _projected(given))
    mask = _merged(given["attn_mask"], given["key_padding_mask"], q, heads)
    if given["need_weights"]:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        weights = torch.softmax(scores if mask is None else scores + mask, -1)
        mixed = weights @ v
        weights = weights.mean(1) if given["average_attn_weights"] else weights
    else:
        causal = given["is_causal"] and given["key_padding_mask"] is None
        mask = None if causal else mask
        mixed = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
        weights = None
    mixed = mixed.permute(2, 0, 1, 3).flatten(-2)
    return F.linear(mixed, given["out_proj_weight"], given["out_proj_bias"]), weights


def _projected(given: dict[str, Any]) -> list[Any]:
    """Queries, keys and values (tokens, B, width); in one product where they are of one tensor."""
    inputs = [given[name] for name in ("query", "key", "value")]
    weight, bias = given["in_proj_weight"], given["in_proj_bias"]
    if not given["use_separate_proj_weight"] and inputs[0] is inputs[1] is inputs[2]:
        return list(F.linear(inputs[0], weight, bias).chunk(3, -1))
    if given["use_separate_proj_weight"]:
        weights = [given[f"{name}_proj_weight"] for name in "qkv"]
    else:
        weights = weight.chunk(3)
    biases = [None] * 3 if bias is None else bias.chunk(3)
    return [F.linear(*both) for both in zip(inputs, weights, biases, strict=True)]


def _merged(mask: Any, padding: Any, q: Any, heads: int) -> Tensor | None:
    """Both masks of an attention module as one to be added, (B or 1, heads or 1, queries, keys)."""
    merged = None
    if mask is not None:
        merged = _added(mask, q)
        merged = merged.unflatten(0, (-1, heads)) if merged.dim() == 3 else merged
    if padding is not None:
        own = _added(padding, q)[:, None, None, :]
        merged = own if merged is None else merged + own
    return merged


def _added(mask: Tensor, q: Any) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(q.dtype)
    return torch.zeros(mask.shape, dtype=q.dtype, device=mask.device).masked_fill(mask, -torch.inf)
