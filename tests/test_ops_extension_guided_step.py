"""The compiled guidance step against its twin in plain torch."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from csrc_cases import LARGE, device, run, verify
from kernel_cases import (
    F32,
    F64,
    FLOATS,
    LAYOUTS,
    SHAPE,
    SHAPES,
    VARIANTS,
    WRITABLE,
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

from reg_engine.ops.coefficients import COLUMNS, FIRST_B

pytestmark = pytest.mark.usefixtures(device.__name__)


@pytest.mark.parametrize("given", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("shape", [*SHAPES, (7,), (2, 3, 1, 2, 5)], ids=str)
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_directions_and_shapes(dtype: torch.dtype, shape: tuple, given: tuple) -> None:
    verify(make_step(shape, dtype, given))
    verify(full(shape, dtype=dtype, given=given, channels=1 if len(shape) > 1 else -1))


@pytest.mark.parametrize("net", [*itertools.product(FLOATS, FLOATS)], ids=str)
@pytest.mark.parametrize("term", FLOATS, ids=str)
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_each_prediction_has_its_own_dtype(
    dtype: torch.dtype, term: torch.dtype, net: tuple
) -> None:
    case = full(dtype=dtype, net=net[0])
    verify(replace(case, ref=rand(SHAPE, net[1]), term=rand(SHAPE, term)))


@pytest.mark.parametrize("options", [*itertools.product([False, True], repeat=3)], ids=str)
@pytest.mark.parametrize("lags", [0, 2])
def test_gain_noise_and_history_come_and_go(options: tuple[bool, ...], lags: int) -> None:
    gain, noise, history = options
    ring = 4 if history or lags else 0
    for channels in (-1, 0, 2, 9):
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
            verify(replace(case, **{place: LAYOUTS[name](SHAPE, dtype)}))


@pytest.mark.parametrize("name", WRITABLE)
def test_all_tensors_lie_alike(name: str) -> None:
    make = WRITABLE[name]
    for changes in ({}, {"gain": True}, {"channels": 2}, {"lags": 1, "ring": 2}):
        verify(make_step(make=make, noise=True, **changes), make)
    verify(make_step(LARGE, make=make, lags=1, ring=2), make)


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_table_step_and_gain_may_be_views(dtype: torch.dtype) -> None:
    case = full(dtype=dtype)
    rows, columns = case.table.shape
    wide = rand((rows, columns + 4), dtype)
    wide[:, :columns] = case.table
    gain = rand((SHAPE[0], 2), dtype)
    gain[:, 0] = case.gain
    verify(replace(case, table=wide[:, :columns], gain=gain[:, 0]))
    verify(replace(case, gain=gain[:1, 0].expand(SHAPE[0])))


class TestPartsOfTheStep(StepCases):
    run, verify = staticmethod(run), staticmethod(verify)


@pytest.mark.parametrize("name", WRITABLE)
@pytest.mark.parametrize("channels", [-1, 2])
def test_in_place(name: str, channels: int) -> None:
    """out may be x itself."""
    case = replace(full(channels=channels), x=WRITABLE[name](SHAPE, F32))
    exact, twin = case.in_float64().twin()[0], case.twin()[0]
    assert run(case, case.x)[0] is case.x
    check(case.x, twin, exact)


def with_coefficients(case: Step, **values: float) -> Step:
    table = case.table.clone()
    for name, value in values.items():
        column = FIRST_B + int(name[2:]) if name.startswith("b_") else COLUMNS.index(name)
        table[:, column] = value
    return replace(case, table=table)


@pytest.mark.parametrize("channels", [-1, 2])
def test_what_has_no_weight_is_not_read(channels: int) -> None:
    case = with_coefficients(full(lags=3, ring=4, channels=channels), w=0, c=0, b_1=0, b_3=0)
    wanted = run(case, nan(SHAPE))[0]
    assert torch.isfinite(wanted).all()
    garbage = replace(case, ref=nan(SHAPE), term=nan(SHAPE), noise=nan(SHAPE))
    garbage.history[(case.step - 1) % 4] = math.nan
    garbage.history[(case.step - 3) % 4] = math.nan
    assert torch.equal(bits(run(garbage, nan(SHAPE))[0]), bits(wanted))


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("net", FLOATS, ids=str)
def test_a_neutral_weight_gives_cond_bitwise(net: torch.dtype, dtype: torch.dtype) -> None:
    """The step of a table that hands the guided prediction through."""
    neutral = {"w": 0, "skip": 0, "out": 1, "p": 0, "q": 1, "a": 0, "b_0": 1}
    case = with_coefficients(make_step(dtype=dtype, net=net, given=(True, True)), **neutral)
    out = run(replace(case, ref=nan(SHAPE), term=nan(SHAPE)), nan(SHAPE, dtype))[0]
    assert torch.equal(bits(out), bits(case.cond.to(dtype)))


def test_channels_beyond_the_guided_ones_are_not_guided() -> None:
    case = make_step(channels=2)
    out = run(case, nan(SHAPE))[0]
    plain = run(replace(case, ref=None), nan(SHAPE))[0]
    assert torch.equal(out[:, 2:], plain[:, 2:]) and not torch.equal(out[:, :2], plain[:, :2])
    blind = case.ref.clone()
    blind[:, 2:] = math.nan
    assert torch.equal(run(replace(case, ref=blind), nan(SHAPE))[0], out)


def test_every_bit_is_independent_of_threads() -> None:
    case = full(LARGE)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(run(case, nan(LARGE)))
    for out, history in found[1:]:
        assert torch.equal(out, found[0][0]) and torch.equal(history, found[0][1])


@pytest.mark.parametrize("step", [-1, 6])
def test_a_step_beyond_the_table_is_never_read(step: int) -> None:
    """The CPU says so; a GPU, which nobody waits for, writes NaN and leaves the history."""
    case = replace(full(), step=step)
    if case.x.device.type == "cpu":
        shape = rf"\(6, {FIRST_B + 3}\)"
        with pytest.raises(RuntimeError, match=rf"step is {step}, table is Float of shape {shape}"):
            run(case, nan(SHAPE))
    else:
        assert run(case, rand(SHAPE))[0].isnan().all()
