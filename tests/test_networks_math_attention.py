"""math_attention is PyTorch's call under the math kernel, bit for bit, without the switch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from reg_engine.networks.math_attention import math_attention

CASES: list[dict[str, Any]] = [
    {},
    {"is_causal": True},
    {"scale": 0.3},
    {"attn_mask": torch.tensor([[True, False, True, True]])},
    {"attn_mask": torch.tensor([[0.0, -1.0, 2.0, 0.5]])},
    {"enable_gqa": True},
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("options", CASES, ids=lambda o: "".join(o) or "plain")
def test_equals_the_plain_call_under_the_math_kernel(
    options: dict[str, Any], dtype: torch.dtype
) -> None:
    groups = 1 if "enable_gqa" in options else 2
    q = torch.randn(2, 2, 4, 8, dtype=dtype)
    k, v = torch.randn(2, 2, groups, 4, 8, dtype=dtype)
    mask = options.get("attn_mask")
    if mask is not None and mask.is_floating_point():
        options = options | {"attn_mask": mask.to(dtype)}
    with sdpa_kernel(SDPBackend.MATH):
        wanted = F.scaled_dot_product_attention(q, k, v, **options)
    assert torch.equal(math_attention(q, k, v, **options), wanted)


def test_follows_autocast_as_the_plain_call_does() -> None:
    q, k, v = torch.randn(3, 1, 2, 4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        with sdpa_kernel(SDPBackend.MATH):
            wanted = F.scaled_dot_product_attention(q, k, v.bfloat16())
        found = math_attention(q, k, v.bfloat16())
    assert found.dtype == torch.bfloat16 and torch.equal(found, wanted)


def test_the_kernels_of_the_process_stay_as_they_are() -> None:
    """Inside a call, where another thread would meet the switch."""
    q, k, v = torch.randn(3, 1, 2, 4, 8)
    math_attention(q, k, v)
    assert torch.backends.cuda.flash_sdp_enabled()
