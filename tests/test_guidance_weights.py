"""Weights against their published formulas, written out by hand."""

from __future__ import annotations

import math

import pytest

from reg_engine import InputError, schedules
from reg_engine.guidance.weights import CFGPlusPlus, Constant, Cosine, Interval, Linear, weights_of
from reg_engine.solvers import Row, Table, table

VP = table("ddim", schedules.VPLinear(), 10)
EDM = table("euler", schedules.EDM(), 10)


def test_constant_and_interval() -> None:
    assert weights_of(Constant(3.0), VP) == (2.0,) * 10
    got = weights_of(Interval(3.0, 0.5, 10.0), EDM)
    assert got == tuple(2.0 if 0.5 <= row.sigma <= 10 else 0.0 for row in EDM.rows)
    assert 0.0 in got and 2.0 in got
    # Both ends belong to the interval.
    levels = [row.sigma for row in EDM.rows]
    closed = weights_of(Interval(3.0, levels[6], levels[2]), EDM)
    assert closed == (0.0,) * 2 + (2.0,) * 5 + (0.0,) * 3


def test_linear_by_convention() -> None:
    t = [row.t for row in VP.rows]
    wanted = [4.0 + (1.0 - 4.0) * (v - t[0]) / (t[-1] - t[0]) for v in t]
    assert weights_of(Linear(5.0, 2.0), VP) == pytest.approx(wanted)
    # Released DiT code: w(0) = start and w(1000) = 2 start - end, both in w = scale - 1.
    wanted = [4.0 + (4.0 - 1.0) * v / 1000 for v in t]
    assert weights_of(Linear(5.0, 2.0, "dit"), VP) == pytest.approx(wanted)
    n = [row.sigma for row in EDM.rows]
    # Released EDM code: g + (g - end) / (max - min) * (sigma - max).
    wanted = [4.0 + (4.0 - 1.0) / (n[0] - n[-1]) * (v - n[0]) for v in n]
    assert weights_of(Linear(5.0, 2.0, "edm"), EDM) == pytest.approx(wanted)


def test_cosine_by_convention() -> None:
    t = [row.t for row in VP.rows]
    p = [(v - t[0]) / (t[-1] - t[0]) for v in t]
    wanted = [0.5 * (1 - math.cos(math.pi * v**2)) * 4 for v in p]
    assert weights_of(Cosine(5.0, 2.0), VP) == pytest.approx(wanted)
    wanted = [0.5 * (1 - math.cos(math.pi * (1 - v / 1000))) * 4 for v in t]
    assert weights_of(Cosine(5.0, convention="dit"), VP) == pytest.approx(wanted)
    n = [row.sigma for row in EDM.rows]
    wanted = [0.5 * (1 - math.cos(math.pi * (1 - v / n[0]))) * 4 for v in n]
    assert weights_of(Cosine(5.0, convention="edm"), EDM) == pytest.approx(wanted)


@pytest.mark.parametrize("weight", [Cosine(3.0, convention="edm"), Linear(3.0, 1.0, "edm")])
def test_edm_convention_needs_finite_levels(weight: Cosine | Linear) -> None:
    flow = table("flow_euler", schedules.Flow(), 10)
    with pytest.raises(InputError, match="^convention: 'edm'"):
        weights_of(weight, flow)
    later = table("flow_euler", schedules.Flow(), 2, times=[0.9, 0.5, 0.0])
    assert weights_of(weight, later)[0] == (2.0 if isinstance(weight, Linear) else 0.0)


@pytest.mark.parametrize("weight", [Linear(3.0, 1.0, "dit"), Cosine(3.0, convention="dit")])
@pytest.mark.parametrize(
    "schedule",
    [
        schedules.Flow(),
        schedules.EDM(),
        schedules.EDM(sigma_max=999.0),
        schedules.VPSDE(),
        schedules.VPLinear(train_steps=100),
    ],
    ids=repr,
)
def test_dit_convention_needs_a_thousand_steps(
    weight: Linear | Cosine, schedule: schedules.Schedule
) -> None:
    with pytest.raises(InputError, match="^convention: 'dit'.*'diffusers'"):
        weights_of(weight, table("euler", schedule, 5))
    for fits in (schedules.ScaledLinear(), schedules.Cosine()):
        rows = table("euler", fits, 5)
        t = [row.t for row in rows.rows]
        wanted = [2.0 + 2.0 * v / 1000 for v in t]
        if isinstance(weight, Cosine):
            wanted = [1 - math.cos(math.pi * (1 - v / 1000)) for v in t]
        assert weights_of(weight, rows) == pytest.approx(wanted)


@pytest.mark.parametrize("solver", ["ddim", "ddpm", "euler", "euler_ancestral"])
def test_cfg_plus_plus_takes_clean_from_guided_and_noise_from_ref(solver: str) -> None:
    """x_s = (clean coefficient) D_guided + (noise coefficient) eps_ref, computed on numbers."""
    rows = table(solver, schedules.VPLinear(), 7)
    x, ref, cond, strength = 0.7, -0.4, 1.3, 0.6
    for row, w in zip(rows.rows, weights_of(CFGPlusPlus(strength), rows), strict=True):
        a, b = row.a + row.b[0] * row.p, row.b[0] * row.q
        eps_ref = (x - row.alpha * ref) / row.sigma
        wanted = (b + a * row.alpha) * (ref + strength * (cond - ref)) + a * row.sigma * eps_ref
        assert a * x + b * (cond + w * (cond - ref)) == pytest.approx(wanted, rel=1e-9)


def test_weight_must_be_finite_and_callable() -> None:
    with pytest.raises(InputError, match="row 0"):
        weights_of(lambda row, table: math.nan, VP)
    with pytest.raises(InputError, match="function"):
        weights_of("linear", VP)


def test_cosine_of_the_noise_level_has_a_power() -> None:
    n = [row.sigma for row in EDM.rows]
    wanted = [0.5 * (1 - math.cos(math.pi * (1 - v / n[0]) ** 3)) * 4 for v in n]
    assert weights_of(Cosine(5.0, 3.0, "edm"), EDM) == pytest.approx(wanted)


@pytest.mark.parametrize("convention", ["diffusers", "edm"])
def test_a_single_row_is_the_last_one(convention: str) -> None:
    one = table("euler", schedules.EDM(), 1)
    assert weights_of(Linear(5.0, 2.0, convention), one) == (1.0,)
    wanted = 4.0 if convention == "diffusers" else 0.0  # 1 - n/n_max
    assert weights_of(Cosine(5.0, convention=convention), one) == (wanted,)


@pytest.mark.parametrize("kind", [Linear, Cosine])
def test_a_convention_is_known_when_the_weight_is_made(kind: type[Linear] | type[Cosine]) -> None:
    for unknown in ("EDM", "ddim", ""):
        with pytest.raises(InputError, match=f"^convention: unknown name '{unknown}'"):
            kind(2.0, convention=unknown)


def test_cfg_plus_plus_needs_steps_of_one_stage() -> None:
    for solver in ("heun", "dpmpp_2m"):
        with pytest.raises(InputError, match=f"^solver: CFG.* not for '{solver}'"):
            weights_of(CFGPlusPlus(0.5), table(solver, schedules.EDM(), 4))
    still = Row(1.0, 1.0, 1.0, 2.0, 1.0, 2.0, p=0.0, q=1.0, a=1.0, b=(0.0,), c=math.sqrt(3.0))
    assert weights_of(CFGPlusPlus(0.5), Table("mine", 1.0, (still,), 1.0)) == (0.0,)


def test_a_weight_may_be_as_large_as_the_state_holds() -> None:
    assert weights_of(Constant(3.0), VP, 2.0) == (2.0,) * 10
    assert weights_of(lambda row, table: -2.0, VP, 2.0) == (-2.0,) * 10
    with pytest.raises(InputError, match="^weight at row 0: is 2.0"):
        weights_of(Constant(3.0), VP, math.nextafter(2.0, 0.0))
