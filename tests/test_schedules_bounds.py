"""The numbers that schedules are made of: both ends of every range, and what is kept of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from bound_cases import LEAST, above, below, holds

from reg_engine import InputError
from reg_engine.schedules import EDM, VESDE, VPSDE, Betas, Cosine, Flow, ScaledLinear, VPLinear

TINY, HUGE = 1e-30, 1 / 1e-30
FLAG = ((True, False), (1, 0.0))
COUNT = ((1, 50), (0, 2.0))
BETA = ((1e-9, 0.999), (0.0, 1.0))
UP_TO_ONE = ((LEAST, 1.0), (0.0, above(1.0)))


@pytest.mark.parametrize(
    ("kind", "name", "bounds", "others"),
    [
        (EDM, "sigma_min", ((above(TINY), below(80.0)), (TINY, HUGE)), {}),
        (EDM, "sigma_max", ((above(0.002), below(HUGE)), (0.002, HUGE)), {}),
        (EDM, "rho", ((above(0.1), below(1e6)), (0.1, 1e6)), {}),
        (Flow, "shift", ((above(1e-6), below(1e6)), (1e-6, 1e6)), {}),
        (Flow, "grid_start", UP_TO_ONE, {}),
        (Flow, "highest", UP_TO_ONE, {}),
        (Flow, "grid_end", ((0.0, below(0.5)), (-LEAST, 0.5)), {"grid_start": 0.5}),
        (Flow, "terminal", ((above(1e-6), below(1.0)), (1e-6, 1.0)), {}),
        (Flow, "extra_step", FLAG, {}),
        (VPSDE, "beta_min", ((above(1e-6), below(20.0)), (1e-6, 250.0)), {}),
        (VPSDE, "beta_max", ((above(0.1), below(250.0)), (0.1, 250.0)), {}),
        (VPSDE, "grid_end", ((above(1e-12), below(1.0)), (1e-12, 1.0)), {}),
        (VESDE, "sigma_min", ((above(TINY), below(50.0)), (TINY, HUGE)), {}),
        (VESDE, "sigma_max", ((above(0.01), below(HUGE)), (0.01, HUGE)), {}),
        (VPLinear, "beta_start", BETA, {"beta_end": 0.5, "train_steps": 2}),
        (VPLinear, "beta_end", BETA, {"beta_start": 0.5, "train_steps": 2}),
        (ScaledLinear, "beta_start", BETA, {"beta_end": 0.5, "train_steps": 2}),
        (ScaledLinear, "beta_end", BETA, {"beta_start": 0.5, "train_steps": 2}),
        (VPLinear, "train_steps", COUNT, {}),
        (ScaledLinear, "train_steps", COUNT, {}),
        (Cosine, "train_steps", COUNT, {}),
        (VPLinear, "steps_offset", ((0, 7), (-1, 1.0)), {}),
        (VPLinear, "rounded", FLAG, {}),
        (VPLinear, "extra_step", FLAG, {}),
        (VPLinear, "terminal", ((0.0, 1e-9), (-LEAST, 1.0)), {}),
    ],
)
def test_ranges_end_where_they_say(
    kind: Any, name: str, bounds: tuple[tuple[Any, ...], ...], others: dict[str, Any]
) -> None:
    holds(kind, name, *bounds, **others)


def test_a_level_may_pass_the_largest_by_rounding_only() -> None:
    schedule = VPLinear()
    largest = schedule.noise_level(999.0)
    assert schedule.time_of(largest * (1 + 0.9e-12)) == 999.0
    assert schedule.time_of(0.0) == -1.0
    for level in (largest * (1 + 1.1e-12), -LEAST, math.nan):
        with pytest.raises(InputError, match="^noise_level: "):
            schedule.time_of(level)


@pytest.mark.parametrize("name", ["prior", "spacing", "ends", "final"])
@pytest.mark.parametrize(
    "kind", [VPLinear, ScaledLinear, Cosine, lambda **f: Betas((0.1, 0.2), **f)]
)
def test_a_chain_of_every_kind_refuses_unknown_names(kind: Any, name: str) -> None:
    with pytest.raises(InputError, match=f"^{name}: unknown name 'other'"):
        kind(**{name: "other"})
    with pytest.raises(InputError, match="^rounded: "):
        kind(rounded=1)
