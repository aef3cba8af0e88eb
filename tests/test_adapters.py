"""Engine against pipeline: what a network, its scheduler and its prompts give under plain CFG."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import tiny_pipelines as tiny
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from family_cases import CASES, differences, engine
from family_errors import SCALE, STEPS, compared
from torch import Tensor

import reg_engine
from reg_engine import BadModel, Engine, Guidance, Guide, denoiser_of, schedules
from reg_engine.adapters.packed import pack, unpack


@pytest.mark.parametrize("name", CASES)
def test_cfg_is_the_pipelines(name: str) -> None:
    case = CASES[name]
    error, unguided = compared(case, case.build())
    assert error < 2e-6 and unguided > 1e-3


SCHEDULERS: dict[str, Any] = {
    "pndm": PNDMScheduler(**tiny.BETAS, skip_prk_steps=True, steps_offset=1),
    "dpm": DPMSolverMultistepScheduler(**tiny.BETAS),
    "unipc": UniPCMultistepScheduler(**tiny.BETAS),
    "euler": EulerDiscreteScheduler(**tiny.BETAS, timestep_spacing="trailing"),
    "v, zero terminal SNR": DDIMScheduler(
        **tiny.BETAS,
        clip_sample=False,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    ),
    "sample": DDIMScheduler(**tiny.BETAS, clip_sample=False, prediction_type="sample"),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_under_other_schedulers(name: str) -> None:
    case = CASES["sd"]
    error, unguided = compared(case, tiny.sd(SCHEDULERS[name]))
    assert error < 1e-5 and unguided > 1e-3


@pytest.mark.parametrize("name", ["flux", "sd3"])
def test_times_shift_with_the_size(name: str) -> None:
    case = CASES[name]
    pipe = case.build()
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_image_seq_len=8, max_image_seq_len=32, max_shift=1.16
    )
    error, unguided = compared(case, pipe)
    assert error < 2e-6 and unguided > 1e-3
    # what the pipeline's call left in its scheduler is not taken for the model's
    assert case.denoiser(pipe)[0].schedule.times is None


def test_the_times_of_a_schedulers_last_call_are_left_out() -> None:
    scheduler = EulerDiscreteScheduler(**tiny.BETAS)
    scheduler.set_timesteps(sigmas=[9.0, 3.0, 1.0, 0.0])
    assert schedules.from_diffusers(scheduler).times is not None
    assert (
        denoiser_of(tiny.sd(scheduler)).schedule
        == denoiser_of(tiny.sd(EulerDiscreteScheduler(**tiny.BETAS))).schedule
    )


def test_a_flow_of_fewer_training_times() -> None:
    """Its network is told num_train_timesteps t."""
    case, pipe = CASES["sd3"], tiny.sd3()
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=500, shift=3.0)
    error, _ = compared(case, pipe)
    assert error < 2e-6


class Exact(UniPCMultistepScheduler):
    """Tells its network the times themselves: UniPC cuts those of flows to integers."""

    def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
        super().set_timesteps(*args, **kwargs)
        self.timesteps = self.sigmas[:-1] * self.config.num_train_timesteps


def test_wan_under_its_usual_scheduler() -> None:
    """Not as it cuts its times to integers, but exactly as it is without that."""
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    case = CASES["wan"]
    cut, _ = compared(case, tiny.wan(UniPCMultistepScheduler(**flow)))
    assert 1e-5 < cut < 0.05
    pipe = tiny.wan(Exact(**flow))
    wanted = case.latents(pipe, SCALE, STEPS)
    pipe.scheduler = UniPCMultistepScheduler(**flow)
    model, cond = case.denoiser(pipe)
    run = engine(pipe, model, STEPS, scale=SCALE, rectify=None)
    assert differences(run.sample(cond, noise=case.noise()).samples, wanted) < 2e-6


@torch.no_grad()
def loop(net: Any, scheduler: Any, x: Tensor, labels: Tensor, scale: float) -> Tensor:
    """CFG with diffusers' own steps."""
    scheduler.set_timesteps(STEPS)
    for t in scheduler.timesteps:
        cond, none = (net(x, t, y).sample for y in (labels, torch.full_like(labels, 10)))
        x = scheduler.step(none + scale * (cond - none), t, x).prev_sample
    return x


def test_a_network_of_labels() -> None:
    """UNet2DModel, whose pipelines have no guidance; the scheduler as an object and as a dict."""
    net, labels = tiny.unet2d(), torch.tensor([3, 7])
    scheduler = DDIMScheduler(clip_sample=False)
    noise = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = loop(net, scheduler, noise, labels, SCALE)
    for said in (scheduler, {**scheduler.config, "_class_name": "DDIMScheduler"}):
        model = denoiser_of(net, scheduler=said, null_cond=10)
        assert model.sample_shape == (3, 8, 8) and model.num_classes == 11
        choices = {"scale": SCALE, "rectify": None, "solver": "ddim", "steps": STEPS}
        out = Engine(model, **choices, progress=False).sample(labels, noise=noise)
        assert differences(out.samples, wanted) < 2e-6
    free = denoiser_of(tiny.unet2d(), scheduler=scheduler)
    with pytest.raises(reg_engine.InputError, match="null_cond: the model has none"):
        reg_engine.sample(free, labels, scale=2.0, progress=False)


def test_one_line_each() -> None:
    """Whatever takes a model takes a pipeline, and a network with its scheduler."""
    pipe = tiny.dit()
    model, noise = denoiser_of(pipe), CASES["dit"].noise()
    choices = {"scale": 3.0, "rectify": "vjp", "steps": 2, "progress": False, "noise": noise}
    wanted = reg_engine.sample(model, [1, 2], **choices).samples
    assert torch.equal(reg_engine.sample(pipe, [1, 2], **choices).samples, wanted)
    net = denoiser_of(pipe.transformer, scheduler=pipe.scheduler)
    assert torch.equal(reg_engine.sample(net, [1, 2], **choices).samples, wanted)
    other = DDIMScheduler(clip_sample=False, beta_end=0.03)
    assert denoiser_of(pipe, scheduler=other).schedule == schedules.from_diffusers(other)
    assert model.schedule != schedules.from_diffusers(other)
    guided = [Guide(m, [1, 2], scale=3.0, rectify="vjp")(noise, 500.0) for m in (model, pipe)]
    assert torch.equal(*guided)
    tried = {"steps": 2, "solver": "ddim", "progress": False}
    found = [reg_engine.calibrate_damping(m, [1, 2], **tried).factors for m in (model, pipe)]
    assert found[0] == found[1]


def test_a_compiled_network_keeps_its_family() -> None:
    pipe = tiny.dit()
    net = torch.compile(pipe.transformer, backend="eager")
    model = denoiser_of(net, scheduler=pipe.scheduler)
    x, labels = CASES["dit"].noise(), torch.tensor([1, 2])
    wanted = denoiser_of(pipe)(x, 500.0, labels)
    assert differences(model(x, 500.0, labels), wanted) < 1e-6


def test_edm() -> None:
    """A network under EDMEulerScheduler is told ln(sigma)/4 and scaled as in EDM."""
    from diffusers import EDMEulerScheduler

    scheduler = EDMEulerScheduler(sigma_data=0.7)
    net, labels = tiny.unet2d(), torch.tensor([3, 7])
    model = denoiser_of(net, scheduler=scheduler, null_cond=10)
    noise = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    scheduler.set_timesteps(STEPS)
    x = noise * scheduler.init_noise_sigma
    with torch.no_grad():
        for t in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x, t)
            cond, none = (net(scaled, t, y).sample for y in (labels, torch.tensor([10, 10])))
            x = scheduler.step(none + SCALE * (cond - none), t, x).prev_sample
    solver, options = schedules.solver_from_diffusers(scheduler)
    run = Engine(
        model, scale=SCALE, rectify=None, solver=solver, solver_options=options, steps=STEPS,
        progress=False,
    )  # fmt: skip
    assert differences(run.sample(labels, noise=noise).samples, x) < 1e-5


def test_distilled_guidance_is_a_way_to_guide_along() -> None:
    """BadModel: the same network told 1."""
    case, pipe = CASES["flux_distilled"], tiny.flux(True)
    cond, null = case.told(pipe)
    strong, weak = (
        denoiser_of(pipe, embedded_guidance=g, sample_shape=case.shape, null_cond=null)
        for g in (3.5, 1.0)
    )
    x, t = case.noise(), 0.7
    guidance = Guidance(3.0, BadModel(weak), rectify=None)
    found = Guide(strong, cond, guidance=guidance)(x, t)
    with torch.no_grad():
        ahead, behind = strong(x, t, cond), weak(x, t, cond)
    assert differences(found, ahead + 2.0 * (ahead - behind)) < 1e-6
    assert differences(ahead, behind) > 1e-3


def test_packing_is_the_pipelines() -> None:
    from diffusers import FluxPipeline

    x = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    assert torch.equal(pack(x), FluxPipeline._pack_latents(x, 2, 3, 4, 6))
    assert torch.equal(unpack(pack(x), 4, 6), x)
