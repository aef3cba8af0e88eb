"""norm_dual: a norm, its modulation or SiLU, and their tangent from one read."""

from __future__ import annotations

from bench import duals

PROVIDERS, CASES = duals.PROVIDERS["norm_dual"], duals.CASES["norm_dual"]


def test_norm_dual(kernel_bench, kernel_case, provider):
    kernel_bench(duals.NORM, kernel_case, provider)
