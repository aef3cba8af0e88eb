"""Every solver against the diffusers scheduler of its name: same network, same noise, same result.

Left out of 1, 2, 5, 20 and 50 steps: grids that would start with next to no noise ("leading", and
diffusers' "linspace" and EDM's "exponential", with one step), and PNDM below four steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers_loop import (
    STEPS,
    TOLERANCE,
    Net,
    relative_error,
    run_theirs,
    tolerance,
    vp_denoised,
)
from torch import Tensor

from reg_engine import Denoiser, Engine
from reg_engine.noise import SampleNoise
from reg_engine.schedules import from_diffusers, solver_from_diffusers
from reg_engine.solvers import table

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")  # theirs

BETAS: dict[str, dict[str, Any]] = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 8.5e-4, "beta_end": 0.012},
}
PLAIN = {"clip_sample": False}
FIRST = {"steps_offset": 1, "set_alpha_to_one": False}
SIGMA_MIN = {"final_sigmas_type": "sigma_min"}
SDE = {"algorithm_type": "sde-dpmsolver++"}
# DDIM and PNDM step to t - 1000 // steps, a time of the grid under these two spacings only.
STRIDED = ("leading", "trailing")
SPACINGS = (*STRIDED, "linspace")
DPM, UNIPC = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"
CASES: list[tuple[str, dict[str, Any], tuple[str, ...], dict[str, Any]]] = [
    ("DDPMScheduler", PLAIN, SPACINGS, {}),
    ("DDPMScheduler", {}, SPACINGS, {}),
    ("DDIMScheduler", PLAIN, STRIDED, {}),
    ("DDIMScheduler", PLAIN | FIRST, STRIDED, {"eta": 1.0}),
    ("DDIMScheduler", PLAIN, STRIDED, {"eta": 0.3}),
    ("PNDMScheduler", {}, STRIDED, {}),
    ("PNDMScheduler", {"skip_prk_steps": True, "steps_offset": 1}, STRIDED, {}),
    ("EulerDiscreteScheduler", {}, SPACINGS, {}),
    ("EulerDiscreteScheduler", SIGMA_MIN, SPACINGS, {}),
    ("EulerAncestralDiscreteScheduler", {}, SPACINGS, {}),
    ("HeunDiscreteScheduler", {}, SPACINGS, {}),
    # "linspace" goes to sigma = 0.01 in its last step, and divides float32's rounding by it.
    ("HeunDiscreteScheduler", {"clip_sample": True, "clip_sample_range": 0.5}, STRIDED, {}),
    (DPM, {}, SPACINGS, {}),
    (DPM, SIGMA_MIN, SPACINGS, {}),
    (DPM, SIGMA_MIN | {"lower_order_final": False}, SPACINGS, {}),
    (DPM, SIGMA_MIN | {"euler_at_final": True}, SPACINGS, {}),
    (DPM, SDE, SPACINGS, {}),
    (DPM, SDE | SIGMA_MIN | {"lower_order_final": False}, SPACINGS, {}),
    (UNIPC, {}, SPACINGS, {}),
    (UNIPC, {"solver_order": 3}, SPACINGS, {}),
    (UNIPC, {"solver_order": 1}, SPACINGS, {}),
    # At sigma = 0 "bh1" and no lower_order_final are NaN in diffusers.
    (UNIPC, SIGMA_MIN | {"solver_order": 1, "solver_type": "bh1"}, SPACINGS, {}),
    (UNIPC, SIGMA_MIN | {"solver_order": 3, "solver_type": "bh1"}, SPACINGS, {}),
    (UNIPC, SIGMA_MIN | {"lower_order_final": False}, SPACINGS, {}),
]


DOUBLE: dict[str, Any] = {"dtype": torch.float64, "progress": False, "rectify": None}


def noises_of_engine(steps: int) -> list[Tensor]:
    """Unit noise, and what the engine's solver draws for seeds 0 to 3 in each of its rows."""
    like = torch.empty(4, 6, dtype=torch.float64)
    source = SampleNoise(range(4))
    source.normal(like)  # the start's own: its place is kept where a start is given
    return [torch.full_like(like, 0.5), *(source.normal(like) for _ in range(steps))]


def counts(kind: str, settings: dict[str, Any], spacing: str) -> tuple[int, ...]:
    if kind == "PNDMScheduler":
        return STEPS[2:]
    return STEPS if spacing == "trailing" or kind in (DPM, UNIPC) else STEPS[1:]


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize(
    ("kind", "settings", "spacing", "options"),
    [(kind, settings, s, options) for kind, settings, all_s, options in CASES for s in all_s],
)
def test_equals_diffusers(
    kind: str, settings: Any, spacing: str, options: Any, betas: str, monkeypatch: Any
) -> None:
    for steps in counts(kind, settings, spacing):
        scheduler = getattr(diffusers, kind)(**BETAS[betas], **settings, timestep_spacing=spacing)
        error = relative_error(scheduler, steps, monkeypatch, **options)
        assert error <= TOLERANCE, steps


@pytest.mark.parametrize("kind", ["DDIMScheduler", "EulerDiscreteScheduler", DPM, UNIPC])
def test_trained_betas_equal_diffusers(kind: str, monkeypatch: Any) -> None:
    betas = np.linspace(1e-4, 0.015, 1000) ** 1.1
    for steps in STEPS:
        scheduler = getattr(diffusers, kind)(
            trained_betas=betas,
            timestep_spacing="trailing",
            **(PLAIN if kind == "DDIMScheduler" else {}),
        )
        assert relative_error(scheduler, steps, monkeypatch) <= TOLERANCE, steps


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
@pytest.mark.parametrize("kind", ["DDIMScheduler", "EulerDiscreteScheduler", "DDPMScheduler"])
def test_other_predictions_equal_diffusers(kind: str, prediction: str, monkeypatch: Any) -> None:
    for steps in STEPS[1:]:
        scheduler = getattr(diffusers, kind)(
            **BETAS["scaled_linear"],
            prediction_type=prediction,
            **({} if kind.startswith("Euler") else PLAIN),
        )
        error = relative_error(scheduler, steps, monkeypatch, vp_denoised(prediction))
        assert error <= TOLERANCE, steps


def test_large_variance_equals_diffusers(monkeypatch: Any) -> None:
    for steps in STEPS[1:]:
        scheduler = diffusers.DDPMScheduler(variance_type="fixed_large", **PLAIN)
        assert relative_error(scheduler, steps, monkeypatch) <= TOLERANCE, steps


@pytest.mark.parametrize("eta", [0.0, 0.7])
@pytest.mark.parametrize("limit", [0.3, 1.0])
def test_clipped_ddim_equals_diffusers(limit: float, eta: float, monkeypatch: Any) -> None:
    """Through the engine: DDIM clips the estimate and keeps epsilon, which no table's row says."""
    for steps in STEPS:
        scheduler = diffusers.DDIMScheduler(clip_sample_range=limit, timestep_spacing="trailing")
        scheduler.set_timesteps(steps)
        name, options = solver_from_diffusers(scheduler)
        assert options == {"clip": limit, "keep_epsilon": True}
        options |= {"eta": eta}
        net, draws = Net(), noises_of_engine(steps)
        model = Denoiser(
            lambda x, t, y, net=net: net(x, float(t[0])), "epsilon", from_diffusers(scheduler), (6,)
        )
        engine = Engine(
            model, scale=1.0, solver=name, solver_options=options, steps=steps, **DOUBLE
        )
        x = engine.sample([0] * 4, seeds=range(4), noise=draws[0]).samples
        y = run_theirs(scheduler, Net(), draws, monkeypatch, eta)
        assert float((x - y).abs().max() / y.abs().max()) <= TOLERANCE, steps


@pytest.mark.parametrize("levels", ["karras", "exponential", "beta"])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("kind", ["EulerDiscreteScheduler", "HeunDiscreteScheduler"])
def test_spaced_levels_equal_diffusers(
    kind: str, spacing: str, levels: str, monkeypatch: Any
) -> None:
    for steps in STEPS if spacing == "trailing" else STEPS[1:]:
        scheduler = getattr(diffusers, kind)(
            **BETAS["scaled_linear"], timestep_spacing=spacing, **{f"use_{levels}_sigmas": True}
        )
        # Inverting float32 levels, whose smallest is off by 8e-5, moves their times by 0.006.
        error = relative_error(scheduler, steps, monkeypatch, time_error=1e-2)
        assert error <= TOLERANCE, steps


@pytest.mark.parametrize("levels", ["karras", "exponential", "beta"])
@pytest.mark.parametrize(
    ("kind", "settings"), [(DPM, {}), (DPM, SDE), (UNIPC, {}), (DPM, SIGMA_MIN)]
)
def test_spaced_levels_of_multistep_solvers(
    kind: str, settings: Any, levels: str, monkeypatch: Any
) -> None:
    """diffusers rounds or cuts these times to integers; the levels stay as they are."""
    for steps in STEPS:
        scheduler = getattr(diffusers, kind)(
            **BETAS["scaled_linear"], **settings, **{f"use_{levels}_sigmas": True}
        )
        assert relative_error(scheduler, steps, monkeypatch, cut=True) <= TOLERANCE, steps


@pytest.mark.parametrize(
    ("kind", "settings", "spacing"),
    [
        ("DDIMScheduler", PLAIN, "trailing"),
        *(
            (kind, settings, spacing)
            for spacing in ("trailing", "linspace")
            for kind, settings in (
                ("DDPMScheduler", PLAIN),
                ("EulerDiscreteScheduler", {}),
                ("EulerAncestralDiscreteScheduler", {}),
                (DPM, {}),
                (DPM, SDE),
                (UNIPC, {}),
                (UNIPC, {"solver_order": 3}),
            )
        ),
    ],
)
def test_zero_terminal_snr_equals_diffusers(
    kind: str, settings: Any, spacing: str, monkeypatch: Any
) -> None:
    """From alpha = 0 or 2^-12, where only v says something about x_0."""
    for steps in counts(kind, settings, spacing):
        scheduler = getattr(diffusers, kind)(
            **BETAS["scaled_linear"],
            **settings,
            rescale_betas_zero_snr=True,
            prediction_type="v_prediction",
            timestep_spacing=spacing,
        )
        error = relative_error(scheduler, steps, monkeypatch, vp_denoised("v_prediction"))
        assert error <= tolerance(scheduler), steps


def test_levels_of_dpm_solver_are_those_of_diffusers() -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(**BETAS["linear"], use_karras_sigmas=True)
    schedule = from_diffusers(scheduler)
    scheduler.set_timesteps(25)
    rows = table("dpmpp_2m", schedule, 25).rows
    levels = np.array([row.sigma / row.alpha for row in rows])
    assert levels == pytest.approx(scheduler.sigmas.numpy()[:-1], rel=1e-4)  # float32 table
    assert [row.t for row in rows] == pytest.approx(scheduler.timesteps.tolist(), rel=0, abs=0.51)
