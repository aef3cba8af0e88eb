"""attention_dual: attention and its tangent in one pass, against torch's attention forward."""

from __future__ import annotations

from bench import duals

PROVIDERS, CASES = duals.PROVIDERS["attention_dual"], duals.CASES["attention_dual"]


def test_attention_dual(kernel_bench, kernel_case, provider):
    kernel_bench(duals.ATTENTION, kernel_case, provider)
