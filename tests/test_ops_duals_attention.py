"""attention_dual in plain torch against float64 forward AD through math attention."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from dual_cases import ATTENTION, BF16, F16, F32, F64, Attention, rand, relative

from reg_engine import ops
from reg_engine.ops.duals import attention

every_case = pytest.mark.parametrize("case", ATTENTION.values(), ids=ATTENTION)
LIMITS = {F64: 1e-12, F32: 2e-6, F16: 2e-3, BF16: 8e-3}


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@every_case
def test_value_and_derivative(case: Attention, dtype: torch.dtype) -> None:
    case = replace(case, dtype=dtype)
    out, out_t = ops.attention_dual(**case.given(), backend="reference")
    exact, exact_t = case.exact()
    assert out.dtype == out_t.dtype == dtype
    assert relative(out, exact) <= LIMITS[dtype] and relative(out_t, exact_t) <= LIMITS[dtype]


@every_case
def test_the_value_is_bitwise_that_of_torch(case: Attention) -> None:
    given = case.given()
    keys = ("q", "k", "v", "attn_mask", "is_causal", "scale", "enable_gqa")
    names = {{"q": "query", "k": "key", "v": "value"}.get(k, k): given[k] for k in keys}
    out, _ = ops.attention_dual(**given, backend="reference")
    assert torch.equal(out, F.scaled_dot_product_attention(**names))


@pytest.mark.parametrize("entries", [1, 19, 40, 5 * 19, 13 * 19, 2 * 13 * 19 + 1])
@every_case
def test_in_chunks(case: Attention, entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry, one row, a few rows, two matrices at a time: the same."""
    monkeypatch.setitem(attention.CHUNK, "cpu", 4 * entries)
    _, out_t = ops.attention_dual(**case.given(), backend="reference")
    assert relative(out_t, case.exact()[1]) <= LIMITS[F32]


def test_no_square_matrix_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.memory import peak_bytes

    case = Attention(batch=1, heads=4, queries=600, keys=500, size=4)
    monkeypatch.setitem(attention.CHUNK, "cpu", 1 << 14)
    given = case.given()
    small = peak_bytes(
        lambda: ops.attention_dual(**given, backend="reference"), torch.device("cpu")
    )
    assert small < 4 * 600 * 500 / 2  # bytes: an eighth of one head's matrix in float32


@pytest.mark.parametrize("layout", ["stacked", "strided"])
@every_case
def test_written_in_place(case: Attention, layout: str) -> None:
    out = case.outputs(layout)
    buffer = out[0]._base
    found = ops.attention_dual(**case.given(), out=out, backend="reference")
    wanted = ops.attention_dual(**case.given(), backend="reference")
    assert all(a is b and torch.equal(a, c) for a, b, c in zip(found, out, wanted, strict=True))
    assert buffer is not None
    between = buffer.transpose(1, 2)[case.batch : 2 * case.batch]
    assert between[..., : case.size].isnan().any() or layout == "strided"


def test_a_row_that_sees_nothing_is_zero() -> None:
    case = Attention(mask="hidden")
    for value in ops.attention_dual(**case.given(), backend="reference"):
        assert (value[:, :, 2] == 0).all() and (value[0, 1, 1] == 0).all()
        assert (value[1, 0, 1] != 0).any()


@pytest.mark.parametrize("changes", [{"queries": 0}, {"batch": 0}, {"keys": 0}], ids=str)
def test_nothing_to_attend_to(changes: dict[str, int]) -> None:
    case = replace(Attention(), **changes)
    out, out_t = ops.attention_dual(**case.given(), backend="reference")
    assert out.shape == out_t.shape == (case.batch, 2, case.queries, 8)
    assert (out == 0).all() and (out_t == 0).all()


def test_values_of_another_size() -> None:
    case = Attention()
    given = case.given()
    given["v"], given["v_t"] = given["v"][..., :5], given["v_t"][..., :5]
    found = ops.attention_dual(**given, backend="reference")
    for a, b in zip(found, case.exact(), strict=True):
        assert relative(a, b[..., :5]) <= LIMITS[F32]


def test_what_all_keys_have_in_common_cancels_before_rounding() -> None:
    """A tangent that lifts every score alike moves no weight: in 16 bits too."""
    case = Attention(dtype=F16)
    given = case.given()
    given["k_t"] = given["k_t"] / 8 + 20 * rand(8, seed=8).to(F16)
    exact_t = ops.attention_dual(
        *(given[n].double() for n in ("q", "k", "v", "q_t", "k_t", "v_t")), backend="reference"
    )[1]
    _, out_t = ops.attention_dual(**given, backend="reference")
    assert relative(out_t, exact_t) <= 4e-4
