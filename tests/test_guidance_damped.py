"""A damped weight: the same curve over noise levels for every schedule and solver."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from nets import TinyNet, tiny

import reg_engine
from reg_engine import Damped, Engine, Guidance, Guide, InputError, Interval, Term, schedules
from reg_engine.guidance.weights import weights_of
from reg_engine.networks.fingerprint import fingerprint
from reg_engine.solvers import table

LEVELS, FACTORS = (0.1, 1.0, 10.0), (0.8, 0.4, 0.1)
DAMPED = Damped(3.0, LEVELS, FACTORS)


def test_factors_are_linear_in_the_log_of_the_level() -> None:
    assert [DAMPED.factor(level) for level in LEVELS] == pytest.approx(FACTORS, rel=1e-14)
    assert DAMPED.factor(math.sqrt(0.1)) == pytest.approx(0.6)
    assert DAMPED.factor(10**0.25) == pytest.approx(0.4 - 0.3 / 4)


def test_beyond_the_table() -> None:
    """Below, the first value; above, K's law 1/level^2, or a constant where that was measured."""
    assert DAMPED.factor(0.05) == DAMPED.factor(0.0) == 0.8
    assert DAMPED.factor(30.0) == pytest.approx(0.1 / 9)
    assert DAMPED.factor(math.inf) == 0
    flat = Damped(3.0, LEVELS, FACTORS, decay=0.0)
    assert flat.factor(30.0) == flat.factor(math.inf) == 0.1


def test_far_beyond_the_table_is_said() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for level in (0.005, 200.0, 0.0, math.inf):
            DAMPED.factor(level)
    for level in (0.0049, 200.1):
        with pytest.warns(RuntimeWarning, match="0.1 to 10.*levels="):
            DAMPED.factor(level)


@pytest.mark.parametrize(
    ("solver", "schedule"),
    [
        ("heun", schedules.EDM(0.01, 90.0)),
        ("ddim", schedules.VPLinear()),
        ("dpmpp_2m", schedules.ScaledLinear()),
        ("flow_euler", schedules.Flow()),
    ],
)
def test_weights_depend_on_the_noise_level_alone(solver: str, schedule: Any) -> None:
    rows = table(solver, schedule, 9)
    skipping = Damped(3.0, LEVELS, FACTORS, skip_below=0.3)
    for row, w, skipped in zip(
        rows.rows, weights_of(DAMPED, rows), weights_of(skipping, rows), strict=True
    ):
        factor = DAMPED.factor(row.noise_level)
        assert w == 2.0 * factor
        assert skipped == (w if factor >= 0.3 else 0.0)


def test_a_skipped_row_asks_no_reference() -> None:
    net = TinyNet()
    scale = Damped(3.0, LEVELS, FACTORS, skip_below=0.3)
    out = reg_engine.sample(tiny(net=net), [0, 1], scale=scale, steps=6, progress=False)
    weights = Engine(tiny(net=net), scale=scale, steps=6).weights
    assert 0 < weights.count(0.0) < len(weights)
    assert out.stats.modes == {
        "cond": weights.count(0.0), "cfg": len(weights) - weights.count(0.0),
    }  # fmt: skip
    assert out.stats.nfe == 2 * len(weights) - weights.count(0.0)


def test_it_replaces_the_rectifier() -> None:
    for guidance in (
        Engine(tiny(), scale=DAMPED, steps=2).guidance,
        Guidance(DAMPED),
        Guidance(weight=DAMPED, rectify=None),
        Term(DAMPED),
    ):
        assert guidance.rectify is None and guidance.weight is DAMPED
    for rectify in ("vjp", reg_engine.RECTIFIERS["fd"]()):
        with pytest.raises(InputError, match="^rectify: .*twice.*rectify=None"):
            Engine(tiny(), scale=DAMPED, rectify=rectify)
    mixed = Guidance(terms=(Term(DAMPED), Term(1.5, rectify="vjp"))).as_one()
    assert mixed.rectify == "vjp"
    assert mixed.direction.rectified == (False, True)  # type: ignore[attr-defined]


def test_scale_takes_any_weight() -> None:
    """The same samples as through Guidance; Guide too, without times."""

    class Half:
        def per_sample(self, point: Any, cond: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
            return torch.full(cond.shape[:1], 0.5)

    for weight in (DAMPED, Interval(3.0, 0.1, 5.0), lambda row, table: 0.5, Half()):
        choices = {"rectify": None} if weight is not DAMPED else {}
        call = {"seeds": [3, 4], "steps": 3, "progress": False}
        one = reg_engine.sample(tiny(), [0, 1], scale=weight, **choices, **call).samples
        two = reg_engine.sample(tiny(), [0, 1], guidance=Guidance(weight, rectify=None), **call)
        assert torch.equal(one, two.samples)
    x = torch.randn(2, 1, 4, 4)
    own, plain = (Guide(tiny(), [0, 1], scale=s, rectify=None) for s in (DAMPED, 1.8))
    assert torch.allclose(own(x, 1.0), plain(x, 1.0))
    for bad in ("four", Interval, float("nan"), [2.0]):
        with pytest.raises(InputError):
            Engine(tiny(), scale=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "argument"),
    [
        ({"scale": 0.9}, "scale"),
        ({"scale": math.nan}, "scale"),
        ({"scale": math.inf}, "scale"),
        ({"levels": (1.0, 0.1, 10.0)}, "levels"),
        ({"levels": (0.0, 0.1, 10.0)}, "levels"),
        ({"levels": ()}, "levels"),
        ({"levels": (0.1, 0.1, 10.0)}, "levels"),
        ({"factors": (0.5, 0.4)}, "factors"),
        ({"factors": (0.5, 0.4, -0.1)}, "factors"),
        ({"factors": (0.5, 0.4, math.nan)}, "factors"),
        ({"factors": 0.5}, "factors"),
        ({"decay": -1.0}, "decay"),
        ({"skip_below": 1.5}, "skip_below"),
        ({"skip_below": -0.1}, "skip_below"),
        ({"model": None}, "model"),
    ],
)
def test_bad_values_are_named(changes: dict[str, Any], argument: str) -> None:
    with pytest.raises(InputError, match=f"^{argument}: .*(Give|serves)"):
        Damped(**{"scale": 3.0, "levels": LEVELS, "factors": FACTORS, **changes})


def test_another_model_is_said() -> None:
    own = fingerprint(tiny())
    measured = Damped(3.0, LEVELS, FACTORS, model=own)
    other = TinyNet()
    with torch.no_grad():
        other.leave.weight[0, 0] += 1
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*another model")
        Engine(tiny(), scale=measured, steps=3)
        Engine(tiny(net=other), scale=DAMPED, steps=3)  # nobody knows what that was measured on
    for guided in (
        lambda: Engine(tiny(net=other), scale=measured),
        lambda: Guide(tiny(net=other), [0], scale=measured),
        lambda: Engine(tiny(net=other), guidance=Guidance(terms=(Term(measured),))),
    ):
        with pytest.warns(RuntimeWarning, match="another model"):
            guided()


def test_shown_on_one_line() -> None:
    assert repr(DAMPED) == "Damped(3, 3 levels 0.1 to 10)"
    skipping = Damped(3.0, LEVELS, FACTORS, skip_below=0.15)
    assert repr(skipping) == "Damped(3, 3 levels 0.1 to 10, skip_below=0.15)"


def test_the_span_is_where_the_factor_crosses() -> None:
    weight = Damped(4.0, (0.1, 1.0, 10.0), (0.1, 0.7, 0.3))
    lo, hi = weight.span(0.4)
    assert (lo, hi) == (pytest.approx(10**-0.5), pytest.approx(10**0.75))
    assert weight.factor(lo) == pytest.approx(0.4) == weight.factor(hi)
    assert weight.span(0.05) == (0.0, pytest.approx(10 * 6**0.5))  # above the table: 1/level^2
    assert weight.factor(weight.span(0.05)[1]) == pytest.approx(0.05)
    assert replace(weight, decay=0.0).span(0.2) == (pytest.approx(10 ** (-1 + 1 / 6)), math.inf)
    assert replace(weight, decay=1e-3).span(0.01)[1] == math.inf  # more than a float holds
    assert weight.span(0.7) == (pytest.approx(1.0), pytest.approx(1.0))
    for below in (0.71, 0.0, 1.1, math.nan):
        with pytest.raises(InputError, match="^below: "):
            weight.span(below)
    engine = Engine(tiny(), scale=Interval(4.0, lo, hi), steps=8, rectify=None)
    levels = [row.noise_level for row in engine.table.rows]
    assert [mode == "cfg" for mode in engine.modes] == [lo <= level <= hi for level in levels]
    assert set(engine.modes) == {"cfg", "cond"}
