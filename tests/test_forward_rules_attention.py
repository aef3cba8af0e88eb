"""Attention, alone and in PyTorch's module."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from forward_ad import jvp as oracle
from forward_cases import Moves, Rows, Table, check_all, example, unvisited
from torch import Tensor, nn

from reg_engine.errors import EstimatorError
from reg_engine.forward import jvp
from reg_engine.networks.math_attention import math_attention


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


class Home:
    """Where the door of attention's plain kernel is looked up."""

    math_attention = staticmethod(math_attention)


Q, K, V = Moves((2, 2, 5, 4)), Moves((2, 2, 6, 4)), Moves((2, 2, 6, 3))
KC, VC = Rows((2, 2, 6, 4)), Rows((2, 2, 6, 3))
SEEN = noise(5, 6) > -1
TABLE: Table = {}
for _names, _homes in (("scaled_dot_product_attention", (F,)), ("math_attention", (Home,))):

    def enter(*args: Any, names: str = _names, homes: Any = _homes, **kwargs: Any) -> None:
        example(TABLE, names, *args, homes=homes, **kwargs)

    enter(Q, K, V)
    enter(Q, KC, VC)
    enter(Q, K, VC, scale=0.3)
    enter(Q, KC, V)
    enter(Rows((2, 2, 5, 4)), K, V)
    enter(Rows((2, 2, 5, 4)), KC, V)
    enter(Q, noise(1, 2, 6, 4), noise(1, 2, 6, 3)) if _homes == (F,) else None
    enter(Q, Q, Q, is_causal=True)
    enter(Q, K, V, SEEN)
    enter(Q, K, V, attn_mask=noise(5, 6))
    enter(Q, K, V, attn_mask=noise(2, 1, 6))
    enter(Q, K, V, attn_mask=Rows((2, 1, 5, 6)))
    enter(Q, K, V, attn_mask=Rows((2, 1, 1, 6), lambda z: z > -1))
    enter(Q, K, V, attn_mask=Moves((2, 2, 5, 6)), fallback=True)
    enter(Moves((2, 5, 4)), Moves((2, 6, 4)), Moves((2, 6, 3)), SEEN)
    enter(Moves((2, 2, 2, 5, 4)), Moves((2, 2, 2, 6, 4)), Moves((2, 2, 2, 6, 3)), axis=(0, 1))
    enter(Moves((2, 4, 5, 4)), K, V, enable_gqa=True)
    enter(Moves((4, 2, 5, 4)), Moves((4, 2, 6, 4)), Moves((4, 2, 6, 3)), axis=1)


@pytest.mark.parametrize("name", TABLE)
def test_tangents_are_those_of_forward_ad(name: str) -> None:
    check_all(TABLE, name)


def test_every_rule_has_an_example() -> None:
    left = unvisited(TABLE, "attention")
    assert {name.rpartition(".")[2] for name in left} == {"multi_head_attention_forward"}


X, C = noise(3, 5, 8), noise(3, 6, 8).cos()
PADDED = torch.arange(5).expand(3, 5) >= torch.tensor([5, 3, 4])[:, None]
CALLS: dict[str, dict[str, Any]] = {
    "weights": {},
    "each head's weights": {"average_attn_weights": False},
    "no weights": {"need_weights": False},
    "causal": {"need_weights": False, "is_causal": True, "attn_mask": noise(5, 5) > 0.5},
    "added mask": {"need_weights": False, "attn_mask": noise(5, 5)},
    "mask by heads": {"attn_mask": noise(2, 5, 5)},
    "padding": {"key_padding_mask": PADDED},
    "both masks": {"key_padding_mask": PADDED, "attn_mask": noise(5, 5) > 1, "need_weights": False},
}
CALLS["causal"]["attn_mask"] = torch.ones(5, 5, dtype=torch.bool).triu(1)


def attended(x: Tensor, net: nn.Module, options: dict[str, Any], front: bool = True) -> Tensor:
    """Output and weights of an attention module in one tensor, with masks of as many rows as x."""
    own = {
        name: torch.cat([mask] * (len(x) // 3)) if name == "key_padding_mask" else mask
        for name, mask in options.items()
    }
    if "attn_mask" in own and own["attn_mask"].dim() == 3:
        own["attn_mask"] = own["attn_mask"].repeat(len(x), 1, 1)
    y = x if front else x.transpose(0, 1)
    output, weights = net(y, y, y, **own)
    output = output if front else output.transpose(0, 1)
    return output if weights is None else torch.cat([output.flatten(1), weights.flatten(1)], 1)


@pytest.mark.parametrize("front", [True, False])
@pytest.mark.parametrize("name", CALLS)
def test_modules_are_served_with_all_their_options(name: str, front: bool) -> None:
    net = nn.MultiheadAttention(8, 2, batch_first=front, bias=front).double().eval()
    net.requires_grad_(False)
    t = noise(3, 5, 8).sin()
    value, product = oracle(lambda x: attended(x, net, CALLS[name], front), X, t)
    found = jvp(lambda x: attended(x, net, CALLS[name], front), X, t, strict=True)
    torch.testing.assert_close(found.value, value, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.tangent, product, rtol=1e-10, atol=1e-12)


def test_modules_of_other_widths_and_of_constant_keys() -> None:
    net = nn.MultiheadAttention(8, 2, kdim=6, vdim=7, batch_first=True).double()
    net.requires_grad_(False)
    k, v = noise(3, 4, 6), noise(3, 4, 7)

    def call(x: Tensor) -> Tensor:
        count = len(x) // 3
        return net(x, torch.cat([k] * count), torch.cat([v] * count), need_weights=False)[0]

    value, product = oracle(call, X, X.cos())
    found = jvp(call, X, X.cos(), strict=True)
    torch.testing.assert_close(found.value, value, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.tangent, product, rtol=1e-10, atol=1e-12)


MODULES: dict[str, dict[str, Any]] = {
    "bias_k": {"add_bias_kv": True},
    "zero attention": {"add_zero_attn": True},
    "dropout": {"dropout": 0.5},
}


@pytest.mark.parametrize("name", MODULES)
def test_what_a_module_cannot_do_is_refused(name: str) -> None:
    net = nn.MultiheadAttention(8, 2, batch_first=True, **MODULES[name]).double()
    with pytest.raises(EstimatorError, match="multi_head_attention_forward"):
        jvp(lambda x: net(x, x, x)[0], X, X)


def test_no_batch_dropout_or_mixed_rows() -> None:
    q = X[:, None]
    mixing = {
        "over the batch": lambda x: F.scaled_dot_product_attention(*[x.movedim(0, 2)] * 3),
        "different layouts": lambda x: F.scaled_dot_product_attention(
            x.expand(-1, 6, -1, -1), x.transpose(0, 1).expand(-1, 6, -1, -1), x
        ),
        "at random": lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5),
        "of heads": lambda x: F.scaled_dot_product_attention(
            *[x.transpose(0, 1)] * 3, enable_gqa=True
        ),
    }
    for call in mixing.values():
        with pytest.raises(EstimatorError, match="scaled_dot_product_attention"):
            jvp(call, q, q)
    net = nn.MultiheadAttention(8, 2).double()
    with pytest.raises(EstimatorError, match="multi_head_attention_forward"):
        jvp(lambda x: net(x, x, x)[0], X[:, 0], X[:, 0])
