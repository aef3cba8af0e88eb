"""activation_dual in plain torch against float64 forward AD."""

from __future__ import annotations

import pytest
import torch
from dual_cases import BF16, F16, F32, F64, activation, forward, rand, relative

from reg_engine import ops
from reg_engine.ops.duals.activation import ACTIVATIONS, GATED, activation_plain

LIMITS = {F64: 1e-12, F32: 1e-6, F16: 2e-3, BF16: 1.2e-2}
kinds = pytest.mark.parametrize("kind", ACTIVATIONS)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@kinds
def test_value_and_derivative(kind: str, dtype: torch.dtype, count: int) -> None:
    x = 2 * rand(4, 6, 10, dtype=dtype, seed=1)
    x_t = rand(4 * count, 6, 10, dtype=dtype, seed=2)
    found = ops.activation_dual(x, x_t, kind, backend="reference")
    for a, b in zip(found, forward(activation(kind), [x], [x_t]), strict=True):
        assert a.dtype == dtype and a.shape == b.shape and relative(a, b) <= LIMITS[dtype]


@kinds
def test_the_value_is_bitwise_that_of_torch(kind: str) -> None:
    x = rand(4, 6, 10, seed=1)
    y, _ = ops.activation_dual(x, x, kind, backend="reference")
    assert torch.equal(y, activation(kind)(x))


@kinds
def test_written_in_place_from_strided_inputs(kind: str) -> None:
    x, x_t = rand(4, 3, 6, 20, seed=1)[..., ::2], rand(16, 3, 6, 10, seed=2)[::2]
    size = 5 if kind in GATED else 10
    buffer = rand(12, 3, 6, size).to(memory_format=torch.channels_last)
    out = buffer[:4], buffer[4:]
    found = ops.activation_dual(x, x_t, kind, out=out, backend="reference")
    for a, b, c in zip(found, out, forward(activation(kind), [x], [x_t]), strict=True):
        assert a is b and relative(a, c) <= LIMITS[F32]


@pytest.mark.parametrize("name", ["GEGLU", "SwiGLU"])
def test_gates_as_diffusers_does(name: str) -> None:
    activations = pytest.importorskip("diffusers.models.activations")
    module = getattr(activations, name)(6, 5).to("cpu")
    x = rand(2, 3, 6).cpu()
    y, _ = ops.activation_dual(module.proj(x).detach(), module.proj(x).detach(), name.lower())
    assert torch.allclose(y, module(x), atol=1e-6)


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@kinds
def test_elementary_formula(kind: str, dtype: torch.dtype) -> None:
    """What is taken wherever something differentiates."""
    x, x_t = 2 * rand(2, 3, 10, dtype=dtype, seed=1), rand(4, 3, 10, dtype=dtype, seed=2)
    found = activation_plain(x, x_t, kind)
    for a, b in zip(found, forward(activation(kind), [x], [x_t]), strict=True):
        assert a.dtype == dtype and relative(a, b) <= LIMITS[dtype]
