"""Schedules: their formulas, ends, inverse, and grids."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from reg_engine.errors import InputError
from reg_engine.schedules import (
    EDM,
    VP,
    Cosine,
    Flow,
    ScaledLinear,
    Schedule,
    VPLinear,
    karras,
)

VP_KINDS = [VPLinear(), ScaledLinear(), Cosine(), VPLinear(spacing="karras"), Cosine(50)]
ALL = [*VP_KINDS, EDM(), EDM(0.01, 10.0, 3.0), Flow(), Flow(3.0)]


def inner_times(schedule: Schedule) -> np.ndarray:
    """Times over the whole range, integers and fractions, ends included."""
    return np.linspace(schedule.clean_time, schedule.prior_time, 1537)


@pytest.mark.parametrize("schedule", ALL)
def test_ends(schedule: Schedule) -> None:
    assert schedule(schedule.clean_time) == (1.0, 0.0)
    alpha, sigma = schedule(schedule.prior_time)
    # The noise of the start must drown unit data; latent diffusion leaves alpha = 0.068.
    assert alpha / sigma < 0.11 and math.isfinite(sigma)


@pytest.mark.parametrize("schedule", ALL)
def test_noise_level_rises_and_time_of_inverts_it(schedule: Schedule) -> None:
    t = inner_times(schedule)
    level = schedule.noise_level(t)
    assert np.all(np.diff(level) > 0)
    assert schedule.time_of(level) == pytest.approx(t, rel=1e-12, abs=1e-9)
    assert schedule.noise_level(schedule.time_of(level)) == pytest.approx(level, rel=1e-10)


@pytest.mark.parametrize("schedule", ALL)
def test_scalars_and_arrays_agree(schedule: Schedule) -> None:
    t = inner_times(schedule)[::97]
    alphas, sigmas = schedule(t)
    assert alphas.dtype == sigmas.dtype == np.float64 and alphas.shape == t.shape
    for one, alpha, sigma in zip(t.tolist(), alphas, sigmas, strict=True):
        assert schedule(one) == (alpha, sigma)
        assert type(schedule(one)[0]) is float and type(schedule.noise_level(one)) is float


@pytest.mark.parametrize("schedule", VP_KINDS)
def test_variance_is_preserved(schedule: Schedule) -> None:
    alpha, sigma = schedule(inner_times(schedule))
    assert alpha**2 + sigma**2 == pytest.approx(1.0, rel=1e-15)


@pytest.mark.parametrize("schedule", VP_KINDS)
def test_alphas_are_the_product_of_the_betas(schedule: VP) -> None:
    steps = len(schedule.betas())
    product = np.cumprod(1 - schedule.betas())
    alpha, sigma = schedule(np.arange(float(steps)))
    assert alpha**2 == pytest.approx(product, rel=1e-12)
    assert sigma**2 == pytest.approx(1 - product, rel=1e-10)


def test_betas_by_formula() -> None:
    i = np.arange(1000)
    assert VPLinear().betas() == pytest.approx(1e-4 + i / 999 * (0.02 - 1e-4), rel=1e-13)
    root = 0.00085**0.5 + i / 999 * (0.012**0.5 - 0.00085**0.5)
    assert ScaledLinear().betas() == pytest.approx(root**2, rel=1e-13)


def test_cosine_by_formula() -> None:
    """alpha^2(t) = f(t + 1)/f(0), f(u) = cos^2((u/T + s)/(1 + s) pi/2); one beta is clipped."""
    f = [math.cos((u / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for u in range(1001)]
    betas = np.array([1 - f[i + 1] / f[i] for i in range(1000)])
    assert Cosine().betas() == pytest.approx(np.minimum(betas, 0.999), rel=1e-9)
    assert (betas > 0.999).sum() == 1 and Cosine().betas().max() == 0.999
    alpha, _ = Cosine()(np.arange(999.0))
    assert alpha**2 == pytest.approx(np.array(f[1:1000]) / f[0], rel=1e-9)


def test_edm_and_flow_by_formula() -> None:
    assert EDM()(3.5) == (1.0, 3.5)
    assert EDM()(113.0) == (1.0, 113.0)  # churn goes beyond sigma_max
    assert Flow()(0.25) == (0.75, 0.25)
    assert Flow().noise_level(1.0) == math.inf and Flow().time_of(math.inf) == 1.0


def test_between_integers_the_level_is_linear() -> None:
    schedule = VPLinear()
    for low in (-1.0, 0.0, 500.0):
        ends = schedule.noise_level(low), schedule.noise_level(low + 1)
        assert schedule.noise_level(low + 0.3) == pytest.approx(0.7 * ends[0] + 0.3 * ends[1])
    log = VPLinear(spacing="karras")
    ends = math.log(log.noise_level(500.0)), math.log(log.noise_level(501.0))
    assert math.log(log.noise_level(500.3)) == pytest.approx(0.7 * ends[0] + 0.3 * ends[1])


@pytest.mark.parametrize(
    ("schedule", "steps", "expected"),
    [
        (VPLinear(spacing="leading"), 5, [800, 600, 400, 200, 0, -1]),
        (VPLinear(spacing="leading", steps_offset=1, final="first"), 4, [751, 501, 251, 1, 0]),
        (VPLinear(), 5, [999, 799, 599, 399, 199, -1]),
        (VPLinear(spacing="trailing"), 3, [999, 666, 332, -1]),
        (VPLinear(spacing="linspace"), 4, [999, 666, 333, 0, -1]),
        (VPLinear(spacing="linspace"), 1, [999, -1]),
        (VPLinear(spacing="linspace", rounded=False), 5, [999, 749.25, 499.5, 249.75, 0, -1]),
        (VPLinear(spacing="linspace", extra_step=True), 4, [999, 749, 500, 250, -1]),
        (VPLinear(spacing="leading", extra_step=True), 4, [800, 600, 400, 200, -1]),
        (Cosine(10, spacing="trailing"), 10, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, -1]),
        (EDM(1.0, 16.0, rho=2.0), 4, [16, 9, 4, 1, 0]),
        (EDM(), 1, [80, 0]),
        (Flow(), 4, [1, 0.75, 0.5, 0.25, 0]),
        (Flow(3.0), 4, [1, 0.9, 0.75, 0.5, 0]),
        (Flow(grid_end=0.4), 3, [1, 0.7, 0.4, 0]),
    ],
)
def test_grids(schedule: Schedule, steps: int, expected: list[float]) -> None:
    grid = schedule.grid(steps)
    assert grid.dtype == np.float64
    assert grid == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("ends", ["linspace", "trailing", "leading"])
def test_karras_spacing_of_a_chain(ends: str) -> None:
    """The levels are Karras' between the ends that the plain spacing has."""
    schedule = ScaledLinear(spacing="karras", ends=ends)
    plain = ScaledLinear(spacing=ends).grid(20)
    levels = schedule.noise_level(schedule.grid(20))
    first, last = levels[[0, -2]]
    assert first == pytest.approx(ScaledLinear().noise_level(float(plain[0])), rel=1e-12)
    assert last == pytest.approx(ScaledLinear().noise_level(float(plain[-2])), rel=1e-12)
    assert levels[:-1] == pytest.approx(karras(float(first), float(last), 20), rel=1e-12)
    assert levels[-1] == 0.0


def test_karras_by_formula() -> None:
    levels = karras(80.0, 0.002, 5, 7.0)
    ramp = [80 ** (1 / 7) + i / 4 * (0.002 ** (1 / 7) - 80 ** (1 / 7)) for i in range(5)]
    assert levels == pytest.approx([r**7 for r in ramp], rel=1e-12)
    assert levels[0] == 80.0 and levels[-1] == 0.002


def test_prior_scale() -> None:
    assert VPLinear().prior_scale(800.0) == pytest.approx(1.0, rel=1e-15)
    assert VPLinear(prior="sigma").prior_scale(800.0) == VPLinear()(800.0)[1]
    assert EDM().prior_scale(80.0) == 80.0
    assert EDM(prior="unit").prior_scale(80.0) == math.sqrt(6401)
    assert Flow().prior_scale(1.0) == 1.0


def test_schedules_are_values() -> None:
    assert VPLinear() == VPLinear() and VPLinear() != VPLinear(spacing="leading")
    assert len({EDM(), EDM(), Flow(), Flow(2.0)}) == 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        EDM().sigma_max = 3.0  # type: ignore[misc]


class Scaled(EDM):
    """A user's schedule without `@dataclass`: `factor` is a parameter that no field tells of."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        object.__setattr__(self, "factor", factor)

    def _marginal(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.ones_like(t), np.minimum(t, 1e300) * self.factor  # type: ignore[attr-defined]

    def _time_of(self, noise_level: np.ndarray) -> np.ndarray:
        return noise_level / self.factor  # type: ignore[attr-defined, no-any-return]


@dataclasses.dataclass(frozen=True)
class Tabled(EDM):
    """A user's schedule with `@dataclass`, and an array among its fields."""

    knots: np.ndarray = dataclasses.field(default_factory=lambda: np.ones(2))


class Beyond(Tabled):
    """Without `@dataclass` again, below one that has it."""


def test_a_schedule_with_unknown_parameters_equals_itself_alone() -> None:
    wide, narrow = Scaled(20.0), Scaled(5.0)
    assert wide != narrow and wide == wide and wide != Scaled(20.0)  # noqa: PLR0124
    assert len({wide, narrow, wide}) == 2
    assert Beyond() != Beyond() and Scaled(1.0) != EDM() and EDM() != Scaled(1.0)
    assert wide(2.0) == (1.0, 40.0) and narrow.time_of(10.0) == 2.0


def test_a_dataclass_compares_all_its_fields() -> None:
    assert Tabled() == Tabled() and hash(Tabled()) == hash(Tabled())
    assert Tabled() != Tabled(knots=np.zeros(2)) and Tabled() != Tabled(sigma_max=40.0)
    assert Tabled(EDM().sigma_min) != EDM() and EDM() != "EDM"


def test_levels_up_to_the_largest_number() -> None:
    with pytest.raises(InputError, match="noise_level"):
        EDM().time_of(math.inf)


@pytest.mark.parametrize("t", [-1.5, 999.5, math.nan, math.inf])
def test_times_out_of_range(t: float) -> None:
    for call in (VPLinear(), VPLinear().noise_level, VPLinear().prior_scale):
        with pytest.raises(InputError, match="999"):
            call(t)


@pytest.mark.parametrize("level", [-0.1, 158.0, math.nan, math.inf])
def test_levels_out_of_range(level: float) -> None:
    with pytest.raises(InputError, match="noise_level"):
        VPLinear().time_of(level)


@pytest.mark.parametrize("steps", [0, -3, 2.0, True, "5", None])
@pytest.mark.parametrize("schedule", [VPLinear(), EDM(), Flow()])
def test_steps_must_be_positive_integers(schedule: Schedule, steps: Any) -> None:
    with pytest.raises(InputError, match="steps"):
        schedule.grid(steps)


@pytest.mark.parametrize(
    ("schedule", "steps", "word"),
    [
        (
            VPLinear(spacing="leading"),
            1,
            "trailing",
        ),  # would start at t = 0, with no noise to speak of
        (VPLinear(), 1001, "fewer steps"),
        (VPLinear(spacing="leading", extra_step=True), 1000, "fewer steps"),
        (VPLinear(spacing="leading", steps_offset=300), 4, "offset"),
    ],
)
def test_grids_that_do_not_exist(schedule: Schedule, steps: int, word: str) -> None:
    with pytest.raises(InputError, match=word):
        schedule.grid(steps)


@pytest.mark.parametrize(
    ("kind", "fields", "word"),
    [
        (VPLinear, {"spacing": "trailling"}, "trailing"),
        (VPLinear, {"final": "one"}, "final"),
        (VPLinear, {"ends": "karras"}, "ends"),
        (VPLinear, {"prior": "one"}, "prior"),
        (VPLinear, {"steps_offset": -1}, "steps_offset"),
        (VPLinear, {"steps_offset": 0.5}, "steps_offset"),
        (VPLinear, {"train_steps": 0}, "train_steps"),
        (VPLinear, {"train_steps": 10.0}, "train_steps"),
        (VPLinear, {"beta_end": 1.0}, "beta_end"),
        (VPLinear, {"beta_start": "a"}, "beta_start"),
        (ScaledLinear, {"beta_start": 0.0}, "beta_start"),
        (ScaledLinear, {"beta_end": math.nan}, "beta_end"),
        (Cosine, {"train_steps": -5}, "train_steps"),
        (EDM, {"sigma_min": 0.0}, "sigma_min"),
        (EDM, {"sigma_max": 0.001}, "sigma_max"),
        (EDM, {"rho": math.inf}, "rho"),
        (Flow, {"shift": 0.0}, "shift"),
        (Flow, {"grid_end": 1.0}, "grid_end"),
    ],
)
def test_bad_fields_are_named(kind: Any, fields: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        kind(**fields)


def test_a_shifted_flow_starts_at_noise_alone() -> None:
    """At t = 1 alpha is 0 and not a rounding of it, which would pass for a noise level of 1e15."""
    for shift in (0.3, 0.7, 1.0, 1.15, 3.0, 7.0):
        assert Flow(shift=shift).grid(5)[0] == 1.0, shift
