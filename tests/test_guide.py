"""A guide in samplers of other people's kind equals the engine, whatever guides."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from derivative_cases import LOST, Residual, seen
from derivative_cases import SHAPE as IMAGE
from nets import SHAPE, TinyNet, tiny
from torch import Tensor

from reg_engine import (
    APG,
    RECTIFIERS,
    CFGPlusPlus,
    Engine,
    EstimatorError,
    Guidance,
    Guide,
    InputError,
    Interval,
    Linear,
    NumericalError,
    Plan,
    Rescale,
    Term,
    ZeroInit,
    schedules,
)
from reg_engine.noise import SampleNoise

LABELS, SEEDS = torch.tensor([0, 1, 2]), [4, 5, 6]
EDM = schedules.EDM()


def sigmas(solver: str, steps: int) -> list[float]:
    rows = Engine(tiny(), solver=solver, schedule=EDM, steps=steps).table.rows
    return [*(row.sigma for row in rows), rows[-1].sigma_s]


def start(sigma: float) -> Tensor:
    return sigma * SampleNoise(SEEDS).normal(torch.empty(3, *SHAPE, dtype=torch.float64))


def euler(guide: Any, levels: list[float]) -> Tensor:
    """k-diffusion's sample_euler."""
    x = start(levels[0])
    for sigma, then in pairwise(levels):
        x = x + (then - sigma) * (x - guide(x, sigma)) / sigma
    return x


def dpmpp_2m(guide: Any, levels: list[float]) -> Tensor:
    """k-diffusion's sample_dpmpp_2m."""
    x, old = start(levels[0]), None
    for i, (sigma, then) in enumerate(pairwise(levels)):
        denoised = guide(x, sigma)
        h = math.log(sigma) - math.log(then) if then else math.inf
        d = denoised
        if old is not None and then:
            r = (math.log(levels[i - 1]) - math.log(sigma)) / h
            d = (1 + 1 / (2 * r)) * denoised - old / (2 * r)
        x = then / sigma * x - math.expm1(-h) * d
        old = denoised
    return x


LOOPS = {"euler": euler, "dpmpp_2m": dpmpp_2m}


def pair(solver: str, **choices: Any) -> tuple[Guide, Engine]:
    model = tiny(net=TinyNet().double())
    times = choices.pop("times", None)
    one = Engine(
        model, solver=solver, schedule=EDM, steps=6, dtype=torch.float64, progress=False, **choices
    )
    return Guide(model, LABELS, seeds=SEEDS, schedule=EDM, times=times, **choices), one


@pytest.mark.parametrize("rectify", [None, "auto", *RECTIFIERS])
@pytest.mark.parametrize("solver", LOOPS)
def test_a_loop_of_ones_own_equals_the_engine(solver: str, rectify: str | None) -> None:
    guide, one = pair(solver, scale=3.0, rectify=rectify)
    whole = one.sample(LABELS, SEEDS)
    levels = sigmas(solver, 6)
    for _ in range(2):  # a second way after a reset is the same
        found = LOOPS[solver](guide, levels)
        torch.testing.assert_close(found, whole.samples, rtol=1e-6, atol=1e-6)
        assert (guide.stats.nfe, guide.stats.modes) == (whole.stats.nfe, whole.stats.modes)
        assert guide.stats.estimator == whole.stats.estimator
        guide.reset()


@pytest.mark.parametrize(
    "choices",
    [
        {"guidance": Guidance(3.0, direction=APG(), rectify=None)},
        {"guidance": Guidance(3.0, adjust=(ZeroInit(2), Rescale()), rectify="fd_batched")},
        {"guidance": Guidance(Interval(3.0, 0.1, 5.0), rectify="vjp")},
        {"scale": 3.0, "rectify": "fd_batched", "plan": Plan.interval(0.1, 5.0)},
        {"scale": 0.0, "rectify": None},
        {"scale": 1.0, "rectify": None},
    ],
    ids=["apg", "adjust", "interval", "plan", "reference alone", "cond alone"],
)
def test_whatever_guides(choices: dict[str, Any]) -> None:
    guide, one = pair("euler", **choices)
    found = euler(guide, sigmas("euler", 6))
    torch.testing.assert_close(found, one.sample(LABELS, SEEDS).samples, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("weight", [Linear(4.0, 1.5), CFGPlusPlus(0.6)])
def test_weights_that_follow_the_way_need_its_times(weight: Any) -> None:
    levels = sigmas("euler", 6)
    guide, one = pair("euler", guidance=Guidance(weight, rectify=None), times=levels[:-1])
    found = euler(guide, levels)
    torch.testing.assert_close(found, one.sample(LABELS, SEEDS).samples, rtol=1e-9, atol=1e-9)
    with pytest.raises(InputError, match="not among the times"):
        guide(start(1.0), 1.2345)
    with pytest.raises(InputError, match="times"):
        pair("euler", guidance=Guidance(weight, rectify=None))[0](start(1.0), 1.0)


def test_in_a_compiled_loop() -> None:
    guide, one = pair("euler", scale=3.0, rectify="fd_batched")
    step = torch.compile(
        lambda x, sigma, then: x + (then - sigma) * (x - guide(x, sigma)) / sigma, backend="eager"
    )
    levels = sigmas("euler", 6)
    x = start(levels[0])
    for sigma, then in pairwise(torch.tensor(levels, dtype=torch.float64)):
        x = step(x, sigma, then)
    torch.testing.assert_close(x, one.sample(LABELS, SEEDS).samples, rtol=1e-6, atol=1e-6)


def test_the_models_own_times_and_dtypes() -> None:
    model = tiny(schedule=schedules.VPLinear(), prediction="epsilon")
    guide = Guide(model, LABELS, scale=3.0, rectify=None)
    x = start(1.0).float()
    with torch.no_grad():
        cond = model(x, 500.0, LABELS)
    assert guide(x.half(), 500).dtype == torch.float16
    assert torch.equal(Guide(model, LABELS, scale=1.0)(x, torch.full((3,), 500.0)), cond)
    assert not guide(x.requires_grad_(), 500.0).requires_grad


def test_the_network_is_the_callers_between_two_calls() -> None:
    net = TinyNet().train()
    guide = Guide(tiny(net=net), LABELS, scale=3.0, rectify="vjp")
    guide(start(1.0).float(), 1.0)
    assert net.training and all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((torch.zeros(2, *SHAPE), 1.0), "x: "),
        ((torch.zeros(3, *SHAPE, dtype=torch.int64), 1.0), "x: "),
        (("x", 1.0), "x: "),
        ((torch.zeros(3, *SHAPE), torch.tensor([1.0, 2.0, 1.0])), "t: "),
        ((torch.zeros(3, *SHAPE), "1"), "t: "),
    ],
)
def test_bad_arguments_are_named(arguments: tuple[Any, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        Guide(tiny(), LABELS, scale=3.0)(*arguments)


def test_nan_is_an_error() -> None:
    with pytest.raises(NumericalError):
        Guide(tiny(), LABELS, scale=3.0, rectify=None)(torch.full((3, *SHAPE), torch.nan), 1.0)


def test_a_chain_is_followed_in_its_own_times() -> None:
    """Weights on a VP chain: as Euler's rows, down to the clean time that is no step of it."""
    model = tiny("epsilon", schedules.VPLinear(), TinyNet().double())
    one = Engine(model, solver="euler", steps=4)
    times = [row.t for row in one.table.rows]
    for weight in (Linear(4.0, 1.5), CFGPlusPlus(0.6)):
        guidance = Guidance(weight, rectify=None)
        steps = Engine(model, guidance=guidance, solver="euler", steps=4, dtype=torch.float64)
        guide = Guide(model, LABELS, guidance=guidance, times=times)
        for step in steps.steps(LABELS, SEEDS):
            torch.testing.assert_close(guide(step.x, step.t), step.guided, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rectify", ["vjp", "jvp"])
def test_a_lost_derivative_is_seen_wherever_the_way_begins(rectify: str) -> None:
    """Next to the data the network hardly shows in K: it is looked at at noise level 1."""
    around = LOST["out of sight"][0]
    guide = Guide(seen(Residual(around=around), "edm"), [3], scale=3.0, rectify=rectify)
    with pytest.raises(EstimatorError, match="off a finite difference"):
        guide(torch.ones(1, *IMAGE), 0.002)


def test_a_plan_without_the_middle_is_checked_there_too() -> None:
    around = LOST["detached"][0]
    plan = Plan((0.01,), ("reg", "cfg"))
    model = seen(Residual(around=around), "edm")
    guide = Guide(model, [3], scale=3.0, rectify="vjp", plan=plan)
    guide(torch.ones(1, *IMAGE), 1.0)  # not rectified: nothing to check
    assert guide.stats.checks == 0
    with pytest.raises(EstimatorError, match="off a finite difference"):
        guide(torch.ones(1, *IMAGE), 0.002)


def test_a_way_of_any_length_keeps_few_numbers() -> None:
    guide = Guide(tiny(), LABELS, scale=3.0, rectify=None)
    first = guide(start(1.0).float(), 1.0)
    for step in range(300):
        guide(start(1.0).float(), 2.0 + step / 100)
    assert guide._run.cache_info().currsize == 256
    assert torch.equal(guide(start(1.0).float(), 1.0), first)


def test_a_model_without_null_is_guided_by_nothing() -> None:
    model = tiny(null_cond=None)
    assert Guide(model, LABELS, scale=1.0)(start(1.0).float(), 1.0).isfinite().all()
    with pytest.raises(InputError, match="null_cond"):
        Guide(model, LABELS, scale=2.0, rectify=None)(start(1.0).float(), 1.0)


def test_a_bad_condition_is_said_at_once() -> None:
    with pytest.raises(InputError, match="cond"):
        Guide(tiny(), [0, 99], scale=3.0)


def test_the_estimates_are_cond_and_the_guided_one() -> None:
    denoiser = tiny()
    x, labels = torch.randn(3, *denoiser.sample_shape), torch.tensor([0, 1, 2])
    t = denoiser.schedule.time_of(1.0)
    for rectify in (None, "vjp"):
        guide = Guide(denoiser, labels, scale=3.0, rectify=rectify)
        cond, guided = guide.estimates(x, t)
        with torch.no_grad():
            torch.testing.assert_close(cond, denoiser(x, t, labels))
        assert torch.equal(guided, Guide(denoiser, labels, scale=3.0, rectify=rectify)(x, t))
        assert not torch.allclose(cond, guided) and guide.stats.nfe == 2


@pytest.mark.parametrize("rectify", [None, "vjp", "lazy", "blend"])
def test_the_scale_may_change_on_the_way(rectify: str | None) -> None:
    """The memory stays: a way at one scale, said at every step, is the way."""
    guide, other = (pair("euler", scale=3.0, rectify=rectify)[0] for _ in range(2))
    levels = sigmas("euler", 6)

    def told(x: Tensor, sigma: float) -> Tensor:
        other.weigh(8.0)
        other.weigh(3.0)
        return other(x, sigma)

    wanted = euler(guide, levels)
    assert torch.equal(euler(told, levels), wanted) and other.stats.nfe == guide.stats.nfe
    x, sigma = start(levels[2]), levels[2]
    guide, one = (pair("euler", scale=s, rectify="vjp")[0] for s in (3.0, 6.0))
    (c, g), (_, wide) = guide.estimates(x, sigma), one.estimates(x, sigma)
    guide.weigh(6.0)  # the same time again, at another scale
    torch.testing.assert_close(guide(x, sigma), wide)
    torch.testing.assert_close(wide - c, 2.5 * (g - c))


def test_another_kind_of_weight_is_another_guide() -> None:
    guide = pair("euler", scale=3.0)[0]
    two = Guidance(terms=(Term(2.0), Term(3.0)))
    for wrong, of in ((Interval(3.0, 0.1, 5.0), guide), (2.0, pair("euler", guidance=two)[0])):
        with pytest.raises(InputError, match="scale"):
            of.weigh(wrong)


def test_the_time_of_one_sample_may_be_a_tensor() -> None:
    guide = Guide(tiny(), torch.tensor([0]), scale=3.0, rectify=None, schedule=EDM)
    x = torch.ones(1, *SHAPE)
    assert torch.equal(guide(x, torch.tensor([2.0])), guide(x, 2.0))
    with pytest.raises(InputError, match="t: "):
        guide(x, torch.empty(0))
