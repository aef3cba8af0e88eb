"""Configs of diffusers schedulers: what is read, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reg_engine.errors import InputError
from reg_engine.schedules import EDM, Cosine, Flow, from_diffusers, solver_from_diffusers
from reg_engine.schedules.from_config import READERS

diffusers = pytest.importorskip("diffusers")

PLAIN = {"clip_sample": False}  # the engine never clips


def test_cosine_betas_equal_diffusers() -> None:
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", **PLAIN)
    schedule = from_diffusers(scheduler)
    assert isinstance(schedule, Cosine)
    assert schedule.betas() == pytest.approx(scheduler.betas.numpy(), rel=1e-6)  # float32 table
    assert schedule.betas()[-1] == 0.999


def test_pipeline_config_is_read() -> None:
    """Stable Diffusion's scheduler_config.json: private keys and those of others are skipped."""
    config = json.loads(
        '{"_class_name": "PNDMScheduler", "_diffusers_version": "0.7.0", "beta_end": 0.012,'
        ' "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000,'
        ' "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1,'
        ' "trained_betas": null, "clip_sample": false}'
    )
    assert solver_from_diffusers(config) == ("pndm", {"skip_prk": True})
    grid = from_diffusers(config).grid(50)
    scheduler = diffusers.PNDMScheduler.from_config(config)
    scheduler.set_timesteps(50)
    assert grid[:3].tolist() == [981.0, 961.0, 941.0] and grid[-2:].tolist() == [1.0, 0.0]
    assert sorted(set(scheduler.timesteps.tolist())) == sorted(grid[:-1].tolist())
    other = diffusers.EulerDiscreteScheduler.from_config(config)  # carries PNDM's settings along
    assert solver_from_diffusers(other) == ("euler", {})
    assert from_diffusers(other).grid(50)[0] == 999.0  # Euler's own default spacing


def test_flow_and_edm_settings_are_read() -> None:
    flow = from_diffusers({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0})
    assert isinstance(flow, Flow) and flow.shift == 3.0
    edm = from_diffusers({"_class_name": "EDMEulerScheduler", "sigma_max": 40.0, "rho": 5.0})
    assert edm == EDM(0.002, 40.0, 5.0, prior="unit")


@pytest.mark.parametrize(
    ("kind", "setting", "value"),
    [
        ("DDIMScheduler", "rescale_betas_zero_snr", True),
        ("DDIMScheduler", "thresholding", True),
        ("DDPMScheduler", "clip_sample", True),
        ("DDPMScheduler", "variance_type", "learned_range"),
        ("DDPMScheduler", "beta_schedule", "sigmoid"),
        ("DDPMScheduler", "timestep_spacing", "karras"),
        ("PNDMScheduler", "trained_betas", [0.1, 0.2]),
        ("EulerDiscreteScheduler", "interpolation_type", "log_linear"),
        ("EulerDiscreteScheduler", "timestep_type", "continuous"),
        ("EulerDiscreteScheduler", "use_beta_sigmas", True),
        ("EulerDiscreteScheduler", "final_sigmas_type", "half"),
        ("HeunDiscreteScheduler", "use_exponential_sigmas", True),
        ("DPMSolverMultistepScheduler", "solver_order", 3),
        ("DPMSolverMultistepScheduler", "algorithm_type", "sde-dpmsolver++"),
        ("DPMSolverMultistepScheduler", "use_lu_lambdas", True),
        ("DPMSolverMultistepScheduler", "use_flow_sigmas", True),
        ("FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting", True),
        ("FlowMatchEulerDiscreteScheduler", "use_karras_sigmas", True),
        ("EDMEulerScheduler", "sigma_schedule", "exponential"),
        ("DDIMScheduler", "a_setting_of_tomorrow", 1),
    ],
)
def test_unsupported_settings_are_named(kind: str, setting: str, value: Any) -> None:
    config = {"_class_name": kind, setting: value}
    if kind.startswith("DD") and setting != "clip_sample":
        config["clip_sample"] = False
    with pytest.raises(InputError, match=setting):
        from_diffusers(config)
        solver_from_diffusers(config)


@pytest.mark.parametrize("config", [{}, {"_class_name": "LCMScheduler"}, 3, None])
def test_unknown_schedulers_are_refused(config: Any) -> None:
    with pytest.raises(InputError):
        from_diffusers(config)


def test_default_clipping_is_refused() -> None:
    """diffusers clips by default, so a config that says nothing about it asks for clipping."""
    with pytest.raises(InputError, match="clip_sample"):
        from_diffusers({"_class_name": "DDIMScheduler"})


@pytest.mark.parametrize("kind", READERS)
def test_every_setting_of_diffusers_is_known(kind: str) -> None:
    """No default setting of the installed diffusers is unknown, and the defaults agree."""
    plain = PLAIN if kind.startswith("DD") else {}
    scheduler, bare = getattr(diffusers, kind)(**plain), {"_class_name": kind} | plain
    assert from_diffusers(scheduler) == from_diffusers(bare)
    assert solver_from_diffusers(scheduler) == solver_from_diffusers(bare)
