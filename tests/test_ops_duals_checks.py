"""What does not fit a dual op is refused before anything runs, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from dual_cases import Attention, arguments, rand

from reg_engine import ops
from reg_engine.errors import InputError

ATTENTION = Attention(count=2).given()
NORM, ACTIVATION = arguments("norm_dual"), arguments("activation_dual")
WRONG: list[tuple[Callable[..., Any], dict[str, Any], dict[str, Any], str]] = [
    (ops.attention_dual, ATTENTION, {"q": rand(2, 3)}, "q"),
    (ops.attention_dual, ATTENTION, {"q": rand(2, 2, 13, 8).int()}, "q"),
    (ops.attention_dual, ATTENTION, {"k": rand(2, 2, 19, 9)}, "k"),
    (ops.attention_dual, ATTENTION, {"k": ATTENTION["k"].double()}, "k"),
    (ops.attention_dual, ATTENTION, {"v": rand(2, 2, 18, 8)}, "v"),
    (ops.attention_dual, ATTENTION, {"v": rand(2, 2, 19)}, "v"),
    (ops.attention_dual, ATTENTION, {"q": rand(2, 3, 13, 8), "q_t": None}, "k: has 2 heads,"),
    (ops.attention_dual, ATTENTION, {"q_t": None, "k_t": None, "v_t": None}, "q_t"),
    (ops.attention_dual, ATTENTION, {"q_t": rand(3, 2, 13, 8)}, "q_t"),
    (ops.attention_dual, ATTENTION, {"q_t": rand(0, 2, 13, 8)}, "q_t"),
    (ops.attention_dual, ATTENTION, {"k_t": rand(2, 2, 19, 8)}, "k_t"),
    (ops.attention_dual, ATTENTION, {"v_t": rand(4, 2, 19, 7)}, "v_t"),
    (ops.attention_dual, ATTENTION, {"attn_mask": rand(3, 13, 19)}, "attn_mask"),
    (ops.attention_dual, ATTENTION, {"attn_mask": rand(12, 19)}, "attn_mask"),
    (ops.attention_dual, ATTENTION, {"attn_mask": rand(13, 19).int()}, "attn_mask"),
    (ops.attention_dual, ATTENTION, {"attn_mask": rand(1, 1, 1, 13, 19)}, "attn_mask"),
    (ops.attention_dual, ATTENTION, {"attn_mask": rand(13, 19), "is_causal": True}, "attn_mask"),
    (ops.attention_dual, ATTENTION, {"out": rand(2)}, "out"),
    (ops.attention_dual, ATTENTION, {"out": (rand(2, 2, 13, 8),) * 2}, r"out\[1\]"),
    (ops.norm_dual, NORM, {"kind": "batch"}, "kind"),
    (ops.norm_dual, NORM, {"x": rand(6)}, "x"),
    (ops.norm_dual, NORM, {"x_t": rand(3, 5, 6)}, "x_t"),
    (ops.norm_dual, NORM, {"x_t": rand(4, 5, 6)}, "x_t"),
    (ops.norm_dual, NORM, {"kind": "group", "groups": 2}, "groups"),
    (ops.norm_dual, NORM, {"kind": "group", "groups": 0}, "groups"),
    (ops.norm_dual, NORM, {"weight": rand(5)}, "weight"),
    (ops.norm_dual, NORM, {"bias": 1.0}, "bias"),
    (ops.norm_dual, NORM, {"scale": rand(6)}, "scale"),
    (ops.norm_dual, NORM, {"shift": rand(1, 6)}, "shift"),
    (ops.norm_dual, NORM, {"activation": "gelu"}, "activation"),
    (ops.norm_dual, NORM, {"out": (NORM["x"], NORM["x"])}, r"out\[1\]"),
    (ops.activation_dual, ACTIVATION, {"kind": "relu"}, "kind"),
    (ops.activation_dual, ACTIVATION, {"x": rand(2, 5)}, "x"),
    (ops.activation_dual, ACTIVATION, {"x_t": rand(4, 5, 4)}, "x_t"),
    (ops.activation_dual, ACTIVATION, {"out": (ACTIVATION["x"], ACTIVATION["x_t"])}, r"out\[0\]"),
]


@pytest.mark.parametrize(("op", "given", "changes", "said"), WRONG)
def test_wrong_arguments_are_named(
    op: Callable[..., Any], given: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=f"^{said}:? "):
        op(**{**given, **changes})


def test_tangents_of_one_call_have_one_number_of_blocks() -> None:
    case = replace(Attention(), along="q")
    more = Attention(count=2).given()["v_t"]
    with pytest.raises(InputError, match="v_t"):
        ops.attention_dual(**{**case.given(), "v_t": more})
