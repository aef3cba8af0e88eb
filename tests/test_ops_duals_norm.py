"""norm_dual in plain torch against float64 forward AD through torch's own norms."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from dual_cases import BF16, F16, F32, F64, NORM_SHAPES, norm_arguments, norm_exact, rand, relative

from reg_engine import ops
from reg_engine.ops.duals.norm import norm_plain

LIMITS = {F64: 1e-12, F32: 1e-6, F16: 2e-3, BF16: 1.2e-2}
OPTIONS = {
    "bare": "",
    "affine": "weight bias",
    "weight": "weight",
    "modulated": "scale shift",
    "scaled": "scale",
    "all": "weight bias scale shift silu",
    "silu": "silu",
}
kinds = pytest.mark.parametrize("kind", NORM_SHAPES)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("names", OPTIONS.values(), ids=OPTIONS)
@kinds
def test_value_and_derivative(kind: str, names: str, dtype: torch.dtype, count: int) -> None:
    given = norm_arguments(kind, names, dtype, count)
    found = ops.norm_dual(**given, backend="reference")
    for a, b in zip(found, norm_exact(given), strict=True):
        assert a.dtype == dtype and relative(a, b) <= LIMITS[dtype]


@pytest.mark.parametrize("dtype", [F32, F16, BF16], ids=str)
@kinds
def test_a_large_mean_costs_no_digits_of_the_tangent(kind: str, dtype: torch.dtype) -> None:
    """The CPU's kernels would keep the mean in 16 bits."""
    given = norm_arguments(kind, "", dtype)
    given["x"] = given["x"] / 8 + 10
    _, y_t = ops.norm_dual(**given, backend="reference")
    assert relative(y_t, norm_exact(given)[1]) <= {F32: 1e-5, F16: 5e-4, BF16: 4e-3}[dtype]


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("names", ["", "weight", "weight bias"])
@kinds
def test_the_value_is_bitwise_that_of_torch(kind: str, names: str, dtype: torch.dtype) -> None:
    given = norm_arguments(kind, names, dtype)
    x, weight, bias = given["x"], given.get("weight"), given.get("bias")
    wanted = {
        "group": lambda: F.group_norm(x, 2, weight, bias, 1e-3),
        "layer": lambda: F.layer_norm(x, x.shape[-1:], weight, bias, 1e-3),
        "rms": lambda: F.rms_norm(x, x.shape[-1:], weight, 1e-3) + (0 if bias is None else bias),
    }[kind]()
    assert torch.equal(ops.norm_dual(**given, backend="reference")[0], wanted)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(
    ("shape", "form"),
    [((2, 6, 5, 4), torch.channels_last), ((2, 6, 3, 5, 4), torch.channels_last_3d)],
    ids=["2d", "3d"],
)
def test_channels_last_stays(
    shape: tuple[int, ...], form: torch.memory_format, mixed: bool
) -> None:
    x, x_t = rand(*shape, seed=1).to(memory_format=form), rand(*shape, seed=2)
    x_t = x_t if mixed else x_t.to(memory_format=form)
    given = {"x": x, "x_t": x_t, "kind": "group", "groups": 3, "eps": 1e-3}
    y, y_t = ops.norm_dual(**given, backend="reference")
    for a, b in zip((y, y_t), norm_exact(given), strict=True):
        assert relative(a, b) <= LIMITS[F32]
    assert y.is_contiguous(memory_format=form) and y_t.stride() == x_t.stride()


@kinds
def test_written_in_place_from_strided_inputs(kind: str) -> None:
    given = norm_arguments(kind, "weight bias scale shift silu", count=2)
    x, x_t = given["x"], given["x_t"]
    wide = {"x": x.repeat_interleave(2, -1)[..., ::2], "x_t": x_t.repeat_interleave(2, 0)[::2]}
    buffer = rand(len(x) + len(x_t), *x.shape[1:])
    out = buffer[: len(x)], buffer[len(x) :]
    found = ops.norm_dual(**{**given, **wide}, out=out, backend="reference")
    for a, b, c in zip(found, out, norm_exact(given), strict=True):
        assert a is b and relative(a, c) <= LIMITS[F32]


def test_no_rows() -> None:
    y, y_t = ops.norm_dual(rand(0, 4, 8), rand(0, 4, 8), "layer")
    assert y.shape == y_t.shape == (0, 4, 8)


@pytest.mark.parametrize("names", OPTIONS.values(), ids=OPTIONS)
@kinds
def test_elementary_formula(kind: str, names: str) -> None:
    """What is taken wherever something differentiates."""
    given = norm_arguments(kind, names, F64, count=2)
    keys = ("x", "x_t", "kind", "weight", "bias", "eps", "groups", "scale", "shift", "activation")
    for a, b in zip(norm_plain(*map(given.get, keys)), norm_exact(given), strict=True):
        assert relative(a, b) <= LIMITS[F64]
