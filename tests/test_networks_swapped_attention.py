"""Attention calls as a mode sees them: the same result where the same is computed, or another's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reg_engine.networks.math_attention import math_attention
from reg_engine.networks.swapped_attention import Swapped


def same(attention: Any, *args: Any, **options: Any) -> Tensor:
    return attention(*args, **options)


def values(attention: Any, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    return value


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("attention", [F.scaled_dot_product_attention, math_attention])
def test_a_call_is_handed_over_with_its_options(attention: Any) -> None:
    q, k, v = drawn(3, 2, 4, 5, 6)
    seen: list[Any] = []

    def swap(called: Any, *args: Any, **options: Any) -> Tensor:
        seen.append((called, options.get("scale")))
        return called(*args, **options)

    plain = attention(q, k, v, scale=0.3)
    with Swapped(swap):
        torch.testing.assert_close(attention(q, k, v, scale=0.3), plain)
        assert torch.equal(q + k, q + k)
    assert seen == [(attention, 0.3)]
    with Swapped(values):
        assert torch.equal(attention(q, k, v), v)
    assert not torch.equal(attention(q, k, v), v), "only inside"


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", [{}, {"kdim": 5, "vdim": 7}])
@pytest.mark.parametrize("first", [True, False])
def test_a_module_is_the_same_in_parts(bias: bool, sizes: dict[str, int], first: bool) -> None:
    torch.manual_seed(3)
    module = nn.MultiheadAttention(8, 2, bias=bias, batch_first=first, **sizes).double().eval()
    for parameter in module.parameters():
        parameter.data = drawn(*parameter.shape) / 3
    inputs = drawn(3, 4, 8), drawn(3, 4, sizes.get("kdim", 8)), drawn(3, 4, sizes.get("vdim", 8))
    with torch.no_grad():
        plain = module(*inputs, need_weights=False)[0]
        with Swapped(same):
            found, weights = module(*inputs)
        with Swapped(values):
            alone = module(*inputs)[0]
        own = F.linear(inputs[2], *projection(module))
        wanted = F.linear(own, module.out_proj.weight, module.out_proj.bias)
    torch.testing.assert_close(found, plain)
    assert weights is None
    torch.testing.assert_close(alone, wanted)


def projection(module: nn.MultiheadAttention) -> tuple[Tensor, Tensor | None]:
    """Of the values."""
    weight = module.v_proj_weight if module.in_proj_weight is None else module.in_proj_weight[16:]
    return weight, None if module.in_proj_bias is None else module.in_proj_bias[16:]


def test_a_masked_module_stays_as_it_is() -> None:
    module = nn.MultiheadAttention(8, 2, batch_first=True).double().eval()
    x, mask = drawn(3, 4, 8), torch.zeros(3, 4, dtype=torch.bool)
    mask[:, -1] = True
    with torch.no_grad():
        plain = module(x, x, x, key_padding_mask=mask)[0]
        with Swapped(values):
            torch.testing.assert_close(module(x, x, x, key_padding_mask=mask)[0], plain)
            flat = module(x[0], x[0], x[0])[0]  # without a batch
        torch.testing.assert_close(flat, module(x[0], x[0], x[0])[0])


def test_a_transformer_layer_shows_its_attention() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).double().eval()
    x, met = drawn(3, 4, 8), []

    def swap(attention: Any, *args: Any, **options: Any) -> Tensor:
        met.append(args[0].shape)
        return attention(*args, **options)

    with torch.no_grad():
        plain = layer(x)
        with Swapped(swap):
            torch.testing.assert_close(layer(x), plain)
    assert met == [(3, 2, 4, 4)]
