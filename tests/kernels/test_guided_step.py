"""The kernel of the whole guidance step against its twin in plain torch."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import kernel_cases
import pytest
import torch
from kernel_cases import (
    BF16,
    DEVICE,
    F32,
    F64,
    FLOATS,
    LAYOUTS,
    ROW,
    ROWS,
    SHAPES,
    VARIANTS,
    WRITABLE,
    Make,
    Step,
    bits,
    check,
    coefficients,
    full,
    make_step,
    nan,
    rand,
)
from step_cases import StepCases
from torch import Tensor

from reg_engine.ops.coefficients import COLUMNS, FIRST_B

pytest.importorskip("triton", reason="triton is not installed")

from reg_engine.kernels import strides  # noqa: E402
from reg_engine.kernels.guided_step import guided_step  # noqa: E402


def run(step: Step, out: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    return step.run(guided_step, nan(tuple(step.x.shape)) if out is None else out)


def verify(step: Step, make_out: Make = rand) -> None:
    """The kernel against its twin."""
    kernel_cases.verify(guided_step, step, make_out)


@pytest.mark.parametrize("given", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_directions_and_shapes(dtype: torch.dtype, shape: tuple, given: tuple) -> None:
    verify(make_step(shape, dtype, given))
    verify(full(shape, dtype=dtype, given=given, channels=1))


@pytest.mark.parametrize("net", [*itertools.product(FLOATS, FLOATS)], ids=str)
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_each_prediction_has_its_own_dtype(dtype: torch.dtype, net: tuple) -> None:
    case = full(dtype=dtype, net=net[0])
    verify(replace(case, ref=rand((3, 5, 4, 6), net[1]), term=rand((3, 5, 4, 6), dtype)))


@pytest.mark.parametrize("options", [*itertools.product([False, True], repeat=3)], ids=str)
@pytest.mark.parametrize("lags", [0, 2])
def test_gain_noise_and_history_come_and_go(options: tuple[bool, ...], lags: int) -> None:
    gain, noise, history = options
    ring = 4 if history or lags else 0
    for channels in (-1, 2):
        verify(make_step(gain=gain, noise=noise, lags=lags, ring=ring, channels=channels))


@pytest.mark.parametrize(("lags", "ring"), [(0, 1), (0, 4), (1, 2), (3, 4), (3, 7), (12, 13)])
@pytest.mark.parametrize("step", [0, 1, 5, 40])
def test_ring(lags: int, ring: int, step: int) -> None:
    """Slots are found on both sides of the seam, in long rings, and in the very first steps."""
    case = full((2, 3, 5), lags=lags, ring=ring)
    verify(replace(case, step=step, table=coefficients((41, FIRST_B + 1 + lags))))


@pytest.mark.parametrize(
    ("place", "name"),
    [*itertools.product(("x", "cond", "ref", "term", "noise"), LAYOUTS)]
    + [("out", name) for name in WRITABLE],
)
def test_one_tensor_lies_differently(place: str, name: str) -> None:
    for case in (make_step(given=(True, True), noise=True), full(channels=2)):
        if place == "out":
            verify(case, WRITABLE[name])
        else:
            dtype = getattr(case, place).dtype
            verify(replace(case, **{place: LAYOUTS[name]((3, 5, 4, 6), dtype)}))


@pytest.mark.parametrize("name", WRITABLE)
def test_all_tensors_lie_alike(name: str) -> None:
    make = WRITABLE[name]
    for changes in ({}, {"gain": True}, {"channels": 2}, {"lags": 1, "ring": 2}):
        verify(make_step(make=make, noise=True, **changes), make)


class TestPartsOfTheStep(StepCases):
    run, verify = staticmethod(run), staticmethod(verify)


@pytest.mark.parametrize("name", WRITABLE)
@pytest.mark.parametrize("channels", [-1, 2])
def test_in_place(name: str, channels: int) -> None:
    """out may be x itself."""
    case = replace(full(channels=channels), x=WRITABLE[name]((3, 5, 4, 6), F32))
    exact, twin = case.in_float64().twin()[0], case.twin()[0]
    assert case.run(guided_step, case.x)[0] is case.x
    check(case.x, twin, exact)


@pytest.mark.parametrize("given", VARIANTS.values(), ids=VARIANTS)
def test_no_weight_never_looks_at_ref_and_term(given: tuple[bool, bool]) -> None:
    shape = (3, 5, 4, 6)
    case = full(given=given)
    case.table[ROW, COLUMNS.index("w")] = 0.0
    ref, term = (nan(shape) if there else None for there in given)
    clean, poison = run(case), run(replace(case, ref=ref, term=term))
    for a, b in zip(clean, poison, strict=True):
        assert torch.equal(bits(a), bits(b))
    verify(replace(case, ref=None, term=None))


@pytest.mark.parametrize("given", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("net", FLOATS, ids=str)
def test_no_weight_returns_cond_bitwise(net: torch.dtype, given: tuple[bool, bool]) -> None:
    """With x_s = d = guided: the row p = skip = a = 0, q = out = b_0 = 1."""
    case = make_step(given=given, net=net)
    ref, term = (nan(case.x.shape, net) if there else None for there in given)
    case.table.zero_()
    for column in (COLUMNS.index("q"), COLUMNS.index("out"), FIRST_B):
        case.table[ROW, column] = 1.0
    case.table[ROW, COLUMNS.index("limit")] = math.inf
    out, _ = run(replace(case, ref=ref, term=term))
    # 0 x + cond makes +0 of -0, which compares equal; every other bit is kept.
    assert torch.equal(out, case.cond.to(F32))


def test_zero_coefficients_never_look_at_history_and_noise() -> None:
    case = full((2, 3, 5, 7), lags=4, ring=6)
    case.table[ROW, COLUMNS.index("c")] = 0.0
    case.table[ROW, [FIRST_B + 1, FIRST_B + 3]] = 0.0
    clean = run(case)
    history = case.history.clone()
    for lag in (1, 3):
        history[(ROW - lag) % 6] = math.nan
    history[(ROW - 5) % 6] = math.nan  # further back than the row asks for
    poison = run(replace(case, history=history, noise=nan(case.x.shape)))
    assert torch.equal(poison[0], clean[0])
    assert torch.equal(poison[1][ROW % 6], clean[1][ROW % 6])
    verify(case)


def test_channels_beyond_are_not_looked_at() -> None:
    case = full(channels=2)
    clean, _ = run(case)
    ref = case.ref.clone()
    ref[:, 2:] = math.nan
    assert torch.equal(run(replace(case, ref=ref))[0], clean)


def test_the_step_is_read_on_the_device() -> None:
    """One launch of the same arguments serves every row: only the counter's memory changes."""
    case = full((2, 3, 5), lags=1, ring=2)
    step, out = torch.zeros(1, dtype=torch.int64, device=DEVICE), nan((2, 3, 5))
    inputs = (case.x, case.cond, case.table, step, case.ref, case.term, None, case.gain)
    for row in range(ROWS):
        step.fill_(row)
        now = replace(case, step=row, history=case.history.clone())
        guided_step(*inputs, case.noise, case.history, None, -1, out)
        check(out, now.twin()[0], now.in_float64().twin()[0])


def test_weight_gain_and_table_may_be_views() -> None:
    case = full()
    table = coefficients((ROWS, FIRST_B + 3)).mT.contiguous().mT
    for number in (rand((6,))[::2], rand((1,)).expand(3)):
        verify(replace(case, gain=number, table=table))
        verify(replace(case, weight=number, table=table))


def test_no_elements_launch_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reg_engine.kernels.guided_step._guided_step_kernel", None)
    for shape in ((0, 3, 4), (3, 0, 4)):
        run(full(shape))


@pytest.mark.usefixtures("wide_indices")
@pytest.mark.parametrize("channels", [-1, 2])
@pytest.mark.parametrize("net", [F32, BF16], ids=str)
def test_indices_of_64_bits(net: torch.dtype, channels: int) -> None:
    case = full(net=net, channels=channels)
    assert strides.lay_out([case.x, case.cond]).wide
    verify(case)
    verify(replace(case, cond=LAYOUTS["channels_last"]((3, 5, 4, 6), net)))


@pytest.mark.gpu
def test_history_of_more_than_2_31_elements() -> None:
    """A ring of 8.6 GB: the slot of step 2 starts beyond what 32 bits count."""
    size = 2**30 + 1024
    history = torch.zeros((3, 1, 1, size), device=DEVICE)
    x = torch.zeros((1, 1, size), device=DEVICE)
    x[..., -1024:] = tail = rand((1024,))
    table = torch.zeros((3, FIRST_B + 3), device=DEVICE)
    table[2, COLUMNS.index("p")] = table[2, FIRST_B] = 1.0
    table[2, FIRST_B + 2] = 1.0
    history[0, ..., -1024:] = tail
    step = torch.tensor([2], device=DEVICE)
    table[2, COLUMNS.index("limit")] = math.inf
    guided_step(x, x, table, step, None, None, None, None, None, history, None, -1, x)
    assert torch.equal(history[2, 0, 0, -1024:], tail)
    assert torch.equal(x[0, 0, -1024:], 2 * tail)
    assert not x[..., :-1024].any()
