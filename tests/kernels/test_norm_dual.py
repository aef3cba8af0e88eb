"""The kernel of norms with tangents against float64 forward AD through torch's own norms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from dual_cases import BF16, F16, F32, F64, NORM_SHAPES, norm_arguments, norm_exact, rand, relative
from torch import Tensor

pytest.importorskip("triton", reason="triton is not installed")

from reg_engine.kernels import norm_dual as module  # noqa: E402
from reg_engine.kernels import tuning  # noqa: E402

LIMITS = {F64: 1e-12, F32: 1e-6, F16: 1e-3, BF16: 6e-3}
kinds = pytest.mark.parametrize("kind", NORM_SHAPES)


def verify(given: dict[str, Any], make: Any = torch.empty_like) -> tuple[Tensor, Tensor]:
    """Against float64; what was not written stays NaN."""
    x, x_t = given["x"], given["x_t"]
    out = make(x).fill_(torch.nan), make(x_t).fill_(torch.nan)
    names = ("weight", "bias", "eps", "groups", "scale", "shift", "activation")
    module.launch(x, x_t, given["kind"], *({"groups": 1, **given}.get(n) for n in names), *out)
    assert not any(t.isnan().any() for t in out)
    if not len(x):
        return out
    for a, b in zip(out, norm_exact(given), strict=True):
        assert relative(a, b) <= LIMITS[x.dtype]
    return out


@pytest.fixture(params=[4096, 16], ids=["one-block", "blocks"])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row in one block, and in several."""
    parameters = {**tuning.launch_parameters("norm_dual", torch.device("cpu"))}
    parameters["BLOCK"] = request.param
    monkeypatch.setattr(module, "launch_parameters", lambda op, device: parameters)


every_block = pytest.mark.usefixtures("block")


@every_block
@pytest.mark.parametrize("names", ["", "weight bias", "scale", "weight bias scale shift silu"])
@kinds
def test_value_and_derivative(kind: str, names: str) -> None:
    verify(norm_arguments(kind, names, count=2))


@every_block
@pytest.mark.parametrize("dtype", [F16, BF16, F64], ids=str)
@kinds
def test_dtypes(kind: str, dtype: torch.dtype) -> None:
    verify(norm_arguments(kind, "weight bias scale shift silu", dtype))


@every_block
@kinds
def test_a_large_mean_costs_no_digits(kind: str) -> None:
    given = norm_arguments(kind, "")
    given["x"] = (given["x"] / 8 + 30).half().float()
    given["x_t"] = given["x_t"] + (0 if kind == "rms" else 30)
    out = torch.empty_like(given["x"]), torch.empty_like(given["x_t"])
    module.launch(*list(given.values())[:3], None, None, 1e-3, 2, None, None, None, *out)
    for a, b in zip(out, norm_exact(given), strict=True):
        assert relative(a, b) <= 2e-5


def channels_last(like: Tensor) -> Tensor:
    return torch.empty_like(like, memory_format=torch.channels_last)


def every_other(like: Tensor) -> Tensor:
    return torch.empty(2 * len(like), *like.shape[1:-1], 2 * like.shape[-1])[::2, ..., ::2]


def swapped(like: Tensor) -> Tensor:
    return torch.empty_like(like.transpose(1, -1)).transpose(1, -1)


@pytest.mark.parametrize("place", ["x", "x_t", "out", "all"])
@pytest.mark.parametrize("make", [channels_last, every_other, swapped])
def test_layouts_of_a_picture(make: Any, place: str) -> None:
    """The last two cannot be read as rows: they are copied, and back."""
    given = norm_arguments("group", "weight", count=2)
    for name in ("x", "x_t"):
        if place in (name, "all"):
            given[name] = make(given[name]).copy_(given[name])
    verify(given, make if place in ("out", "all") else torch.empty_like)


@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize(
    "shape", [(2, 21), (2, 3, 21), (2, 2, 3, 5), (1, 1, 7), (0, 2, 4)], ids=str
)
@pytest.mark.parametrize("make", [torch.empty_like, every_other])
def test_shapes_of_rows(make: Any, shape: tuple[int, ...], kind: str) -> None:
    given = {"kind": kind, "eps": 1e-3, "weight": rand(shape[-1], seed=4)}
    for name, rows in (("x", shape[0]), ("x_t", 3 * shape[0])):
        value = rand(rows, *shape[1:], seed=len(name))
        given[name] = make(value).copy_(value)
    given["scale"] = rand(shape[-1], shape[0], seed=5).T
    verify(given, make)


@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 5), (2, 6, 2, 3, 2)], ids=str)
def test_shapes_of_groups(shape: tuple[int, ...]) -> None:
    x, x_t = rand(*shape, seed=1), rand(*shape, seed=2)
    scale = rand(1, 6, seed=5).expand(2, 6)
    verify({"x": x, "x_t": x_t, "kind": "group", "groups": 2, "eps": 1e-3, "scale": scale})


def test_indices_of_64_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INT32_LIMIT", 1)
    verify(norm_arguments("group", "weight bias"))


def test_each_tensor_has_its_own_dtype() -> None:
    given = norm_arguments("group", "weight bias scale shift", F16)
    given |= {"weight": given["weight"].float(), "shift": given["shift"].double()}
    verify(given)
