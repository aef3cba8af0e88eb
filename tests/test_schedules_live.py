"""A scheduler as it stands: state that has left the config is used, or refused by its name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers_loop import TOLERANCE, flow_denoised, relative_error

from reg_engine.errors import InputError
from reg_engine.schedules import Betas, Flow, from_diffusers, solver_from_diffusers

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")  # theirs

DDIM = {"clip_sample": False, "timestep_spacing": "trailing"}


def test_a_shift_that_was_set_is_used(monkeypatch: Any) -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    built = from_diffusers(scheduler)
    scheduler.set_shift(7.0)
    schedule = from_diffusers(scheduler)
    assert isinstance(built, Flow) and isinstance(schedule, Flow)
    assert (built.shift, schedule.shift) == (3.0, 7.0)
    assert schedule.grid_end == built.grid_end  # diffusers keeps the sigma_min it was built with
    for steps in (1, 2, 5, 20, 50):
        assert relative_error(scheduler, steps, monkeypatch, flow_denoised) <= TOLERANCE


@pytest.mark.parametrize(
    "kind",
    ["DDIMScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler", "HeunDiscreteScheduler"],
)
def test_a_chain_that_was_replaced_is_used(kind: str, monkeypatch: Any) -> None:
    settings = DDIM if kind == "DDIMScheduler" else {"timestep_spacing": "trailing"}
    scheduler = getattr(diffusers, kind)(**settings)
    config = {**scheduler.config, "_class_name": kind}
    scheduler.alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-3, 0.01, 1000), 0)
    schedule = from_diffusers(scheduler)
    assert isinstance(schedule, Betas) and not isinstance(from_diffusers(config), Betas)
    assert schedule.betas() == pytest.approx(np.linspace(1e-3, 0.01, 1000), rel=1e-3)
    for steps in (2, 20):
        assert relative_error(scheduler, steps, monkeypatch) <= TOLERANCE


def test_the_last_alpha_of_ddim_is_read(monkeypatch: Any) -> None:
    scheduler = diffusers.DDIMScheduler(**DDIM)
    scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    assert from_diffusers(scheduler).grid(5)[-1] == 0.0
    assert relative_error(scheduler, 5, monkeypatch) <= TOLERANCE
    scheduler.final_alpha_cumprod = torch.tensor(0.9)
    with pytest.raises(InputError, match="^final_alpha_cumprod"):
        from_diffusers(scheduler)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("UniPCMultistepScheduler", "predict_x0", False),
        ("UniPCMultistepScheduler", "disable_corrector", [0]),
        ("DDPMScheduler", "variance_type", "fixed_large"),
        ("EulerDiscreteScheduler", "use_karras_sigmas", True),
        ("FlowMatchEulerDiscreteScheduler", "sigma_min", 0.1),
        ("FlowMatchEulerDiscreteScheduler", "sigma_max", 0.9),
        ("DDIMScheduler", "init_noise_sigma", 2.0),
    ],
)
def test_other_state_is_refused_by_name(kind: str, name: str, value: Any) -> None:
    scheduler = getattr(diffusers, kind)()
    setattr(scheduler, name, value)
    for read in (from_diffusers, solver_from_diffusers):
        with pytest.raises(InputError, match=f"^{name}: is .* on the scheduler"):
            read(scheduler)


def test_default_times_leave_the_number_of_steps_free() -> None:
    for kind in ("DDIMScheduler", "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"):
        scheduler = getattr(diffusers, kind)()
        plain = from_diffusers(scheduler)
        scheduler.set_timesteps(7)
        assert from_diffusers(scheduler) == plain and plain.times is None


def test_sigmas_that_were_set_are_the_times(monkeypatch: Any) -> None:
    """As pipelines of Flux do: their own sigmas, and mu."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 6, 6), mu=1.15)
    schedule = from_diffusers(scheduler)
    assert schedule.grid(6) == pytest.approx(Flow(np.exp(1.15).item()).grid(6), rel=1e-6)
    assert relative_error(scheduler, 6, monkeypatch, flow_denoised, live=True) <= TOLERANCE
    with pytest.raises(InputError, match="steps"):
        schedule.grid(5)
    assert from_diffusers(scheduler, mu=0.5).times is None  # what is said here counts


@pytest.mark.parametrize(
    ("kind", "chosen"),
    [
        ("EulerDiscreteScheduler", {"timesteps": [900, 500, 200, 20]}),
        ("EulerDiscreteScheduler", {"sigmas": [20.0, 5.0, 1.0, 0.035, 0.0]}),
        ("HeunDiscreteScheduler", {"timesteps": [900, 500, 200, 20]}),
        ("DPMSolverMultistepScheduler", {"timesteps": [900, 500, 200, 20]}),
        ("DDPMScheduler", {"timesteps": [900, 500, 200, 20]}),
    ],
)
def test_times_that_were_set_are_used(kind: str, chosen: Any, monkeypatch: Any) -> None:
    settings = {"clip_sample": False} if kind == "DDPMScheduler" else {}
    scheduler = getattr(diffusers, kind)(**settings)
    scheduler.set_timesteps(**chosen)
    schedule = from_diffusers(scheduler)
    assert schedule.times is not None and len(schedule.times) == 5
    assert {type(time) for time in schedule.times} == {float}  # diffusers keeps integers too
    # Inverting float32 levels moves the smallest times; Euler interpolates its own in log sigma.
    error = relative_error(scheduler, 4, monkeypatch, live=True, time_error=0.1)
    assert error <= TOLERANCE


def test_times_that_a_scheduler_does_not_take_are_refused() -> None:
    scheduler = diffusers.DDIMScheduler()
    scheduler.set_timesteps(10)
    scheduler.timesteps = scheduler.timesteps[3:]
    with pytest.raises(InputError, match="^timesteps: .*times"):
        from_diffusers(scheduler)
    flow = diffusers.FlowMatchEulerDiscreteScheduler()
    flow.set_timesteps(sigmas=[1.0, 0.5], timesteps=[900.0, 300.0])
    with pytest.raises(InputError, match="^timesteps: are not those of the scheduler's sigmas"):
        from_diffusers(flow)


def test_the_shift_that_dpm_solver_took_from_mu_is_used(monkeypatch: Any) -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(
        use_flow_sigmas=True, use_dynamic_shifting=True, prediction_type="flow_prediction"
    )
    scheduler.set_timesteps(6, mu=1.2)
    error = relative_error(scheduler, 6, monkeypatch, flow_denoised, cut=True, live=True)
    assert error <= TOLERANCE
