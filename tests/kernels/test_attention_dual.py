"""The kernel of attention with tangents against float64 forward AD through math attention."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from dual_cases import ATTENTION, DEVICE, F16, F32, F64, Attention, relative

from reg_engine.errors import InputError

pytest.importorskip("triton", reason="triton is not installed")

from reg_engine.kernels import attention_dual as module  # noqa: E402
from reg_engine.kernels import strides  # noqa: E402
from reg_engine.kernels.attention_dual import attention_dual, columns, parameters_of  # noqa: E402
from reg_engine.kernels.tuning import launch_parameters  # noqa: E402

LIMITS = {F32: 1e-5, F16: 2e-3}
every_case = pytest.mark.parametrize("case", ATTENTION.values(), ids=ATTENTION)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Several tiles of keys and blocks of queries, where the tests' heads have some ten of each."""
    tiles = {"BLOCK_M": 16, "BLOCK_N": 16, "num_warps": 4, "num_stages": 1}
    monkeypatch.setattr(module, "launch_parameters", lambda op, device: tiles)
    yield


def verify(case: Attention, layout: str = "stacked") -> None:
    """Against float64; what was not written stays NaN."""
    out = case.outputs(layout)
    found = attention_dual(**case.given(), out=out)
    for a, b, c in zip(found, out, case.exact(), strict=True):
        assert a is b and relative(a, c) <= LIMITS[case.dtype]


@pytest.mark.usefixtures("small_tiles")
@every_case
def test_value_and_derivative(case: Attention) -> None:
    verify(case)


@pytest.mark.parametrize("name", ["along-qkv", "two-q", "mask-hidden", "mask-causal", "steep"])
def test_in_16_bits_with_the_tiles_of_a_gpu(name: str) -> None:
    verify(replace(ATTENTION[name], dtype=F16))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("mask", ["none", "causal", "hidden", "additive"])
@pytest.mark.parametrize(("queries", "keys"), [(33, 48), (48, 33), (16, 64), (31, 17), (1, 50)])
def test_several_tiles(queries: int, keys: int, mask: str) -> None:
    verify(Attention(1, 1 if mask != "hidden" else 2, queries=queries, keys=keys, mask=mask))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("size", [1, 16, 20, 40, 64, 72, 80, 96, 128, 160, 200, 256])
def test_sizes_of_heads(size: int, dtype: torch.dtype) -> None:
    verify(Attention(1, 2, queries=9, keys=21, size=size, layout="fused", dtype=dtype), "strided")


def test_columns_are_padded_as_little_as_two_parts_can() -> None:
    wanted = {1: (16, 0), 16: (16, 0), 17: (32, 0), 32: (32, 0), 40: (32, 16), 48: (32, 16)}
    wanted |= {49: (64, 0), 64: (64, 0), 72: (64, 16), 80: (64, 16), 81: (64, 32), 96: (64, 32)}
    wanted |= {97: (128, 0), 128: (128, 0), 160: (128, 32), 192: (128, 64), 193: (256, 0)}
    assert {size: columns(size) for size in wanted} == wanted
    for size in range(1, 257):
        assert sum(columns(size)) >= size
        for bits in (16, 32):
            assert launch_parameters(parameters_of(sum(columns(size)), bits), torch.device(DEVICE))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("along", ["qkv", "q", "v"])
def test_indices_of_64_bits(along: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strides, "INT32_LIMIT", 1)
    verify(Attention(along=along, mask="boolean", layout="fused"))


def test_new_outputs_and_none() -> None:
    case = Attention()
    out, out_t = attention_dual(**case.given())
    assert relative(out, case.exact()[0]) <= 1e-5 and relative(out_t, case.exact()[1]) <= 1e-5
    for empty in (replace(case, queries=0), replace(case, batch=0), replace(case, keys=0)):
        for value in attention_dual(**empty.given()):
            assert (value == 0).all()


def test_a_row_that_sees_nothing_is_zero() -> None:
    out, out_t = attention_dual(**Attention(mask="hidden").given())
    for value in (out, out_t):
        assert (value[:, :, 2] == 0).all() and (value[0, 1, 1] == 0).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_a_number_stays_in_its_row(value: float) -> None:
    given = Attention().given()
    given["q_t"][1, 0, 4, 2] = value
    out, out_t = attention_dual(**given)
    bad = ~out_t.isfinite().all(-1)
    assert out.isfinite().all() and bad[1, 0, 4] and bad.sum() == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"dtype": F64}, "float64"), ({"size": 257}, "257"), ({"queries": 0, "size": 300}, "300")],
)
def test_what_it_cannot_take_is_refused(changes: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        attention_dual(**replace(Attention(), **changes).given())


def test_arguments_are_checked() -> None:
    given = Attention().given()
    with pytest.raises(InputError, match="8 and 4 channels"):
        attention_dual(**{**given, "v": given["v"][..., :4], "v_t": given["v_t"][..., :4]})
    with pytest.raises(InputError, match="v: "):
        attention_dual(**{**given, "k": given["k"][:, :, :4]})
