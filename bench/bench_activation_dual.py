"""activation_dual: GELU and GEGLU with their tangent from one read."""

from __future__ import annotations

from bench import duals

PROVIDERS, CASES = duals.PROVIDERS["activation_dual"], duals.CASES["activation_dual"]


def test_activation_dual(kernel_bench, kernel_case, provider):
    kernel_bench(duals.ACTIVATION, kernel_case, provider)
