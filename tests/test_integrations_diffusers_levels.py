"""A scheduler's chain, prediction and times, without its solver."""

from __future__ import annotations

import math

import pytest
import torch

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

from reg_engine import InputError, schedules  # noqa: E402
from reg_engine.integrations.diffusers.levels import levels_of  # noqa: E402

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def at(scheduler: object, steps: int = 5) -> object:
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize("kind", ["DDIM", "PNDM", "DDPM", "LCM"])
def test_a_chain_by_its_whole_times(kind: str) -> None:
    scheduler = at(getattr(diffusers, f"{kind}Scheduler")(**BETAS))
    levels = levels_of(scheduler)
    assert levels.prediction == "epsilon"
    for t in scheduler.timesteps:
        alpha, sigma = levels.schedule(levels.time(float(t)))
        product = float(scheduler.alphas_cumprod[int(t)])
        assert alpha**2 == pytest.approx(product, rel=1e-6)
        assert sigma**2 == pytest.approx(1 - product, rel=1e-6)


@pytest.mark.parametrize(
    "kind", ["EulerDiscrete", "DPMSolverMultistep", "UniPCMultistep", "DEISMultistep"]
)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_chain_by_its_noise_levels(kind: str, prediction: str) -> None:
    """Spaced noise levels lie between the times of the chain."""
    kind = getattr(diffusers, f"{kind}Scheduler")
    scheduler = at(kind(**BETAS, prediction_type=prediction, use_karras_sigmas=True))
    levels = levels_of(scheduler)
    assert levels.prediction == prediction
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        found = levels.schedule.noise_level(levels.time(float(t)))
        # Times that are told as they are have that level by diffusers' own interpolation.
        assert found == pytest.approx(float(sigma), rel=0.05 if "Euler" in str(kind) else 1e-5)


def test_flows_and_their_names_for_times() -> None:
    shifted = at(diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0))
    cut = at(
        diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        )
    )
    for scheduler in (shifted, cut):
        levels = levels_of(scheduler)
        assert levels.prediction == "flow" and levels.schedule == schedules.Flow()
        for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
            for told in (float(t), float(t) / 1000):  # SD3 and Flux
                assert levels.time(told) == pytest.approx(float(sigma), abs=1e-6)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_times_told_in_halves(kind: torch.dtype) -> None:
    """As Flux tells them; the scheduler's step tells apart what they do not."""
    scheduler = at(diffusers.FlowMatchEulerDiscreteScheduler(shift=8.0), 60)
    levels, eps = levels_of(scheduler), torch.finfo(kind).eps
    for i, (t, sigma) in enumerate(zip(scheduler.timesteps, scheduler.sigmas, strict=False)):
        scheduler._step_index = i
        assert levels.time(float(t.to(kind) / 1000), eps) == pytest.approx(float(sigma), abs=1e-6)
    scheduler._step_index = None
    scheduler.set_begin_index(7)
    assert levels.time(float(scheduler.timesteps[7].to(kind)), eps) == float(scheduler.sigmas[7])
    with pytest.raises(InputError, match="none of its scheduler's"):
        levels.time(1100.0, eps)


def test_levels_of_a_flow_that_are_not_its_times() -> None:
    """As CogView4 sets them."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(timesteps=[1000.0, 750.0, 500.0, 250.0], sigmas=[1.0, 0.75, 0.5, 0.25])
    found = [levels_of(scheduler).time(float(t)) for t in scheduler.timesteps]
    assert found == pytest.approx([3 * s / (1 + 2 * s) for s in (1.0, 0.75, 0.5, 0.25)])


def test_times_that_repeat_are_told_apart_by_the_step() -> None:
    scheduler = at(diffusers.DPMSolverMultistepScheduler(**BETAS, use_karras_sigmas=True), 100)
    times = scheduler.timesteps.tolist()
    assert len(set(times)) < len(times)
    levels = levels_of(scheduler)
    for i, t in enumerate(times):
        scheduler._step_index = i
        found = levels.schedule.noise_level(levels.time(float(t)))
        assert found == pytest.approx(float(scheduler.sigmas[i]), rel=1e-4)


def test_zero_terminal_snr_begins_without_a_signal() -> None:
    scheduler = at(
        diffusers.DDIMScheduler(
            rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction"
        )
    )
    levels = levels_of(scheduler)
    assert math.isinf(levels.schedule.noise_level(levels.time(float(scheduler.timesteps[0]))))


def test_what_cannot_be_read_is_named() -> None:
    for scheduler in (
        diffusers.EDMEulerScheduler(),
        diffusers.IPNDMScheduler(),
        diffusers.EulerDiscreteScheduler(timestep_type="continuous"),
        diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        diffusers.CMStochasticIterativeScheduler(),
    ):
        with pytest.raises(InputError, match=f"{type(scheduler).__name__} .*no known alpha, sigma"):
            levels_of(scheduler)
    levels = levels_of(at(diffusers.DDIMScheduler()))
    with pytest.raises(InputError, match=r"the time 123\.4, which is none of its scheduler's"):
        levels.time(123.4)
    assert isinstance(levels.time(float(torch.tensor(800))), float)
