"""Feedback guidance against the released procedure written out, step by step."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import reg_engine
from reg_engine import Engine, Feedback, InputError, oracles, schedules
from reg_engine.noise import SampleNoise
from reg_engine.solvers import table

MIXTURE, LABELS = oracles.two_class_2d(), torch.tensor([0, 1, 0, 1, 1])
WEIGHT = Feedback(0.3, -0.4, 0.9, 2.0)


def log_ratio(x: Tensor, after: Tensor, n: float, to: float, cond: Tensor, ref: Tensor) -> Tensor:
    """log N(after; mean of cond) - log N(after; mean of ref) of the backward step n -> to."""
    share, variance = to**2 / n**2, (n**2 - to**2) * to**2 / n**2
    logs = [
        -((after - (share * x + (1 - share) * d)) ** 2).sum(1) / (2 * variance) for d in (cond, ref)
    ]
    return logs[0] - logs[1]


def by_hand(solver: str, levels: list[float], start: Tensor, weight: Feedback) -> tuple[Any, ...]:
    """Sampling as released: the scale of a step follows from the steps before it."""
    x, log, scales = start, torch.zeros(len(start)).double(), []
    least = math.log((1 - weight.mix) * weight.largest / (weight.largest - 1))

    def denoised(x: Tensor, n: float) -> tuple[Tensor, Tensor]:
        return MIXTURE.denoised(x, 1.0, n, LABELS), MIXTURE.denoised(x, 1.0, n, 2)

    def mixed(scale: Tensor, cond: Tensor, ref: Tensor) -> Tensor:
        return ref + scale[:, None] * (cond - ref)

    def scale_of(log: Tensor) -> Tensor:
        p = log.exp()
        scales.append(p / (p - (1 - weight.mix)))
        return scales[-1]

    def followed(log: Tensor, after: Tensor) -> Tensor:
        change = weight.temperature * log_ratio(x, after, n, to, cond, ref) + weight.offset
        return (log + change).clamp(least, 3.0)

    for n, to in pairwise([*levels, 0.0]):
        cond, ref = denoised(x, n)
        guided = mixed(scale_of(log), cond, ref)
        after = x + (to - n) * (x - guided) / n
        if solver == "heun" and to:
            then = mixed(scale_of(followed(log, after)), *denoised(after, to))
            after = x + (to - n) * ((x - guided) / n + (after - then) / to) / 2
        if to:
            log = followed(log, after)
        x = after
    return x, scales


LEVELS = [20.0, 8.0, 3.0, 1.2, 0.5, 0.2]
UNIT = SampleNoise(range(5)).normal(torch.empty(5, 2).double())
DOUBLE: dict[str, Any] = {"dtype": torch.float64, "progress": False}


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_a_run_is_the_released_procedure(solver: str) -> None:
    wanted, scales = by_hand(solver, LEVELS, 20.0 * UNIT, WEIGHT)
    assert float(torch.stack(scales).std()) > 0.1, "the scale must move"
    assert float(torch.stack(scales).max()) > 1.999, "and meet its limit"
    found = reg_engine.sample(
        MIXTURE.denoiser(schedule=schedules.EDM(0.002, 20.0)), LABELS, scale=WEIGHT, rectify=None,
        solver=solver, solver_options={"times": [*LEVELS, 0.0]}, seeds=range(5), **DOUBLE,
    )  # fmt: skip
    torch.testing.assert_close(found.samples, wanted, rtol=1e-7, atol=1e-7)


def test_a_flow_is_the_same_way_at_x_over_alpha() -> None:
    wanted, _ = by_hand("euler", LEVELS, 20.0 * UNIT, WEIGHT)
    found = reg_engine.sample(
        MIXTURE.denoiser(prediction="flow", schedule=schedules.Flow()), LABELS, scale=WEIGHT,
        rectify=None, solver="ddim", seeds=range(5), **DOUBLE,
        solver_options={"times": [*(n / (1 + n) for n in LEVELS), 0.0]},
    )  # fmt: skip
    torch.testing.assert_close(found.samples, wanted, rtol=1e-7, atol=1e-7)


def test_a_flow_may_begin_at_noise_alone() -> None:
    """At alpha = 0 the state says nothing, and the step from there is counted by its end alone."""
    weight = Feedback(0.05, -0.4, 0.9, 6.0)
    model = MIXTURE.denoiser(prediction="flow", schedule=schedules.Flow())
    engine = Engine(model, scale=weight, rectify=None, solver="flow_euler", steps=5, **DOUBLE)
    first, second, *_ = engine.steps(LABELS)
    assert engine.table.rows[0].alpha == 0
    a, s = schedules.Flow()(second.t)
    cond, ref = (MIXTURE.denoised(first.x, 0.0, 1.0, y) for y in (LABELS, 2))
    y, n = second.x / a, s / a
    change = (((y - ref) ** 2).sum(1) - ((y - cond) ** 2).sum(1)) / (2 * n**2)
    p = (0.05 * change - 0.4).clamp(math.log(0.1 * 6 / 5), 3.0).exp()
    then = [MIXTURE.denoised(second.x, a, s, label) for label in (LABELS, 2)]
    wanted = then[1] + (p / (p - 0.1))[:, None] * (then[0] - then[1])
    torch.testing.assert_close(second.guided, wanted, rtol=1e-7, atol=1e-7)


def test_temperature_and_offset_are_the_released_ones() -> None:
    """The released functions, for the grid of `edm_sampler` in 16 steps."""
    steps, pi, t0, t1 = 16, 0.95, 0.5, 0.4
    levels = [(80 ** (1 / 7) + i / (steps - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
              for i in range(steps)]  # fmt: skip
    tilde = [0.0] * steps
    for i, (n, to) in enumerate(pairwise(levels)):
        tilde[steps - 1 - i] = (n**2 - to**2) * to**2 / n**2
    offset = math.log((1 - pi) * 3 / 2) / ((1 - t0) * steps)
    low, share = int(t1 * steps), t1 * steps - int(t1 * steps)
    temperature = abs(2 * ((1 - share) * tilde[low] + share * tilde[low + 1]) / 10 * offset)
    for solver in ("euler", "heun"):
        found = Feedback.timed(table(solver, schedules.EDM(), steps))
        pair = found.temperature, found.offset
        assert pair == pytest.approx((temperature, offset), rel=1e-9)
        assert (found.mix, found.largest) == (0.95, 10.0)
    late = Feedback.timed(table("euler", schedules.EDM(), steps), peak=0.99)
    assert late.temperature == pytest.approx(abs(2 * tilde[15] / 10 * offset))


def test_without_evidence_guidance_begins_by_the_offset_alone() -> None:
    """Temperature 0: log p = k offset, and scale 3 where `begin` of the steps are left."""
    rows = table("euler", schedules.EDM(), 20)
    timed = Feedback.timed(rows, begin=0.5)
    weight = Feedback(0.0, timed.offset)
    model = MIXTURE.denoiser(schedule=schedules.EDM())
    engine = Engine(model, scale=weight, rectify=None, solver="euler", steps=20, **DOUBLE)
    for k, step in enumerate(engine.steps(LABELS)):
        ref = MIXTURE.denoised(step.x, 1.0, step.t, 2)
        scale = ((step.guided - ref) / (step.cond - ref)).median()
        p = max(math.exp(k * timed.offset), 0.05 * 10 / 9)
        if float((step.cond - ref).abs().min()) > 1e-6:
            assert float(scale) == pytest.approx(p / (p - 0.05), rel=1e-6)
            assert k != 10 or float(scale) == pytest.approx(3.0, rel=1e-6)


def test_a_ratio_does_not_grow_without_end() -> None:
    """log p <= 3, as released: guidance can come back."""
    model = MIXTURE.denoiser(schedule=schedules.EDM())
    engine = Engine(
        model, scale=Feedback(0.0, 2.0), rectify=None, solver="euler", steps=6, **DOUBLE
    )
    first, second, third, *_ = engine.steps(LABELS)
    for step, log in ((first, 0.0), (second, 2.0), (third, 3.0)):
        ref = MIXTURE.denoised(step.x, 1.0, step.t, 2)
        p = math.exp(log)
        wanted = ref + p / (p - 0.05) * (step.cond - ref)
        torch.testing.assert_close(step.guided, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("argument", "build"),
    [
        ("temperature", lambda: Feedback(-1.0, 0.0)),
        ("offset", lambda: Feedback(1.0, math.inf)),
        ("mix", lambda: Feedback(1.0, 0.0, 1.0)),
        ("largest", lambda: Feedback(1.0, 0.0, 0.9, 1.0)),
        ("begin", lambda: Feedback.timed(table("euler", schedules.EDM(), 8), 1.0)),
        ("peak", lambda: Feedback.timed(table("euler", schedules.EDM(), 8), 0.5, 0.0)),
        ("table", lambda: Feedback.timed(table("euler", schedules.EDM(), 2))),
        ("mix", lambda: Feedback.timed(table("euler", schedules.EDM(), 8), mix=0.0)),
    ],
)
def test_bad_numbers_are_named(argument: str, build: Any) -> None:
    with pytest.raises(InputError, match=f"^{argument}"):
        build()
