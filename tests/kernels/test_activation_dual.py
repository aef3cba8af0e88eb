"""The kernel of activations with tangents against float64 forward AD."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from dual_cases import BF16, F16, F32, F64, activation, forward, rand, relative
from torch import Tensor

from reg_engine.ops.duals.activation import ACTIVATIONS, GATED

pytest.importorskip("triton", reason="triton is not installed")

from reg_engine.kernels.activation_dual import launch  # noqa: E402

LIMITS = {F64: 1e-12, F32: 1e-6, F16: 1e-3, BF16: 6e-3}
kinds = pytest.mark.parametrize("kind", ACTIVATIONS)


def contiguous(*shape: int) -> Tensor:
    return torch.empty(shape)


def strided(*shape: int) -> Tensor:
    return torch.empty(*shape[:-1], 2 * shape[-1])[..., ::2]


def batch_slice(*shape: int) -> Tensor:
    return torch.empty(2 * shape[0], *shape[1:])[1::2]


def swapped(*shape: int) -> Tensor:
    return torch.empty(shape[0], shape[-1], *shape[2:-1], shape[1]).transpose(1, -1)


def verify(
    kind: str,
    shape: tuple[int, ...] = (2, 3, 10),
    count: int = 2,
    dtype: torch.dtype = F32,
    make: Any = contiguous,
    make_out: Any = contiguous,
) -> None:
    x, x_t = (
        make(rows, *shape[1:]).copy_(2 * rand(rows, *shape[1:], seed=rows)).to(dtype)
        for rows in (shape[0], count * shape[0])
    )
    size = shape[-1] // 2 if kind in GATED else shape[-1]
    out = [make_out(len(t), *t.shape[1:-1], size).fill_(torch.nan).to(dtype) for t in (x, x_t)]
    launch(x, x_t, kind, *out)
    assert not any(t.isnan().any() for t in out)
    if x.numel():
        for a, b in zip(out, forward(activation(kind), [x], [x_t]), strict=True):
            assert relative(a, b) <= LIMITS[dtype]


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@kinds
def test_value_and_derivative(kind: str, dtype: torch.dtype) -> None:
    verify(kind, dtype=dtype)


@pytest.mark.parametrize("shape", [(1, 2), (3, 6), (2, 2, 3, 4), (2, 1, 2, 3, 4), (0, 4)], ids=str)
@pytest.mark.parametrize("kind", ["silu", "swiglu"])
def test_shapes(kind: str, shape: tuple[int, ...]) -> None:
    verify(kind, shape, count=3)


@pytest.mark.parametrize("make_out", [contiguous, strided, batch_slice, swapped])
@pytest.mark.parametrize("make", [contiguous, strided, batch_slice, swapped])
@pytest.mark.parametrize("kind", ["gelu", "geglu"])
def test_layouts(kind: str, make: Any, make_out: Any) -> None:
    verify(kind, (2, 3, 2, 6), make=make, make_out=make_out)


@pytest.mark.parametrize("kind", ["gelu", "geglu"])
def test_many_blocks(kind: str) -> None:
    verify(kind, (2, 3, 1800))


@pytest.mark.usefixtures("wide_indices")
@pytest.mark.parametrize("kind", ["silu", "swiglu"])
def test_indices_of_64_bits(kind: str) -> None:
    verify(kind)


@kinds
def test_far_from_zero(kind: str) -> None:
    """No overflow turns into NaN."""
    x = torch.tensor([[-100.0, -30.0, 30.0, 100.0]])
    out = [torch.empty(1, 2 if kind in GATED else 4) for _ in range(2)]
    launch(x, torch.ones_like(x), kind, *out)
    for a, b in zip(out, forward(activation(kind), [x], [torch.ones_like(x)]), strict=True):
        assert torch.allclose(a.double(), b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["silu", "gelu_tanh"])
def test_where_the_slope_is_nearly_one(kind: str) -> None:
    """1 - sigmoid is small there, and times x: a difference of nearly equal numbers shows."""
    x = torch.linspace(1.0, 12.0, 2000).reshape(1, -1)
    out = [torch.empty_like(x) for _ in range(2)]
    launch(x, torch.ones_like(x), kind, *out)
    _, exact = forward(activation(kind), [x], [torch.ones_like(x)])
    assert (out[1].double() - exact).abs().max() < 3e-7
