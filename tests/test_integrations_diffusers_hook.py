"""REG inside diffusers' pipelines against its plain statement, family by family."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

import tiny_pipelines  # noqa: E402
from pipeline_peer import NAMES, called, peer  # noqa: E402
from torch import Tensor  # noqa: E402

from reg_engine import InputError, Interval, Plan  # noqa: E402
from reg_engine.integrations.diffusers import reg  # noqa: E402

SEQUENTIAL = ("flux", "wan")


@cache
def pipeline(name: str) -> Any:
    return getattr(tiny_pipelines, name)()


@cache
def plain(name: str) -> Tensor:
    return called(name, pipeline(name))


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.fixture
def sd() -> Iterator[Any]:
    """One of its own, to be changed."""
    yield tiny_pipelines.sd()


@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_plain_statement_and_leaves_no_trace(name: str) -> None:
    pipe = pipeline(name)
    with peer(name, pipe):
        wanted = called(name, pipe)
    with reg(pipe, rectify="vjp") as rectified:
        found = called(name, pipe)
    assert distance(found, wanted) < 1e-5 < 5e-5 < distance(plain(name), wanted)
    assert rectified.stats.nfe == (7 if name in SEQUENTIAL else 6) and rectified.stats.backward == 3
    assert torch.equal(called(name, pipe), plain(name))


@pytest.mark.parametrize("name", ["sd_v", "sdxl", "flux"])
def test_a_finite_difference_is_k_delta(name: str) -> None:
    pipe = pipeline(name)
    with peer(name, pipe, forwards=True):
        wanted = called(name, pipe)
    with reg(pipe, rectify="fd") as rectified:
        found = called(name, pipe)
    assert distance(found, wanted) < 2e-3 and distance(plain(name), wanted) > 1e-2
    assert rectified.stats.estimator == "fd"


@pytest.mark.parametrize("name", ["sd", "wan"])
def test_lagged_and_seldom_asked_estimators_are_near(name: str) -> None:
    pipe = pipeline(name)
    with reg(pipe, rectify="fd"):
        wanted = called(name, pipe, steps=8)
    effect = (called(name, pipe, steps=8) - wanted).norm()
    for estimator in ("jvp", "fd_batched", "alternate", "auto"):
        with reg(pipe, rectify=estimator) as rectified:
            found = called(name, pipe, steps=8)
        assert (found - wanted).norm() < 0.3 * effect, estimator
        assert rectified.stats.estimator == ("alternate" if estimator == "auto" else estimator)


@pytest.mark.parametrize("name", ["sd_v", "dit", "flux", "wan"])
def test_a_scale_of_ones_own(name: str) -> None:
    """It is that of the pipeline where both are 4, whatever the pipeline says else."""
    pipe = pipeline(name)
    with reg(pipe, rectify="vjp"):
        wanted = called(name, pipe)
    with reg(pipe, rectify="vjp", scale=4.0):
        for scale in (4.0, 2.0):
            assert distance(called(name, pipe, scale=scale), wanted) < 1e-5
    with reg(pipe, rectify=None, scale=4.0):
        assert distance(called(name, pipe, scale=9.0), plain(name)) < 1e-5
    with reg(pipe, rectify="blend", scale=4.0) as rectified:
        called(name, pipe)
    assert rectified.stats.estimator == "blend"


def test_weights_follow_the_noise_level() -> None:
    pipe = pipeline("sd")
    unguided = called("sd", pipe, scale=1.0)
    with reg(pipe, scale=Interval(4.0, 1e-6, 1e-5)) as rectified:
        assert distance(called("sd", pipe), unguided) < 1e-5
    assert rectified.stats.nfe == 3
    with reg(pipe, scale=Interval(4.0, 0.0, 1e6), rectify="vjp"):
        inside = called("sd", pipe)
    with reg(pipe, rectify="vjp"):
        assert distance(called("sd", pipe), inside) < 1e-5


def test_a_plan_counts() -> None:
    pipe = pipeline("sd")
    with reg(pipe, rectify="vjp", plan=Plan.interval(1e5, math.inf)) as rectified:
        assert distance(called("sd", pipe), plain("sd")) < 1e-5
    assert rectified.stats.backward == 0


@pytest.mark.parametrize("name", ["sd", "dit"])
def test_without_guidance_nothing_happens(name: str) -> None:
    pipe = pipeline(name)
    before = called(name, pipe, scale=1.0)
    with reg(pipe, rectify="vjp") as rectified:
        assert torch.equal(called(name, pipe, scale=1.0), before)
    assert rectified.stats is None


def test_guidance_that_no_second_prediction_was_asked_for_is_said() -> None:
    pipe = pipeline("flux")
    arguments = {"num_inference_steps": 3, "output_type": "latent", "max_sequence_length": 16}
    arguments |= {"height": 16, "width": 16}
    with reg(pipe), pytest.warns(RuntimeWarning, match="true_cfg_scale > 1 and a negative_prompt"):
        pipe("a cat", **arguments)


@pytest.mark.parametrize("scheduler", ["UniPCMultistep", "KDPM2Discrete", "LCM", "DDPM"])
def test_schedulers_are_kept(sd: Any, scheduler: str) -> None:
    """Also those that no solver of this library reproduces."""
    import diffusers

    kind = getattr(diffusers, f"{scheduler}Scheduler")
    sd.scheduler = kind.from_config(sd.scheduler.config)
    before = called("sd", sd)
    with reg(sd, rectify="vjp"):
        found = called("sd", sd)
    sd.scheduler = kind.from_config(sd.scheduler.config)
    with peer("sd", sd):
        wanted = called("sd", sd)
    assert distance(found, wanted) < 1e-5 < distance(before, wanted)


def test_lora(sd: Any) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    before = called("sd", sd)
    sd.unet.add_adapter(
        peft.LoraConfig(r=4, target_modules=["to_q", "to_v"], init_lora_weights=False)
    )
    with reg(sd, rectify="vjp"):
        found = called("sd", sd)
    with peer("sd", sd):
        wanted = called("sd", sd)
    assert distance(found, wanted) < 1e-5 < distance(before, called("sd", sd))


def test_a_callback_interrupts(sd: Any) -> None:
    def stop(pipe: Any, step: int, t: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        pipe._interrupt = step == 1
        return tensors

    with reg(sd, rectify="vjp") as rectified:
        found = called("sd", sd, steps=6, callback_on_step_end=stop)
    with peer("sd", sd):
        wanted = called("sd", sd, steps=6, callback_on_step_end=stop)
    assert distance(found, wanted) < 1e-5 and rectified.stats.backward == 2


def test_four_prompts_with_four_negatives(sd: Any) -> None:
    given = {"prompt": ["a", "b c", "d", "e"], "negative_prompt": ["w", "x", "y z", ""]}
    given |= {"num_inference_steps": 3, "guidance_scale": 4.0, "height": 16, "width": 16}

    def made() -> Tensor:
        seeds = [torch.Generator().manual_seed(seed) for seed in range(4)]
        return sd(**given, generator=seeds, output_type="latent")[0]

    with peer("sd", sd):
        wanted = made()
    with reg(sd, rectify="vjp"):
        assert distance(made(), wanted) < 1e-5 < distance(plain("sd"), wanted[:2])


def test_controlnet(sd: Any) -> None:
    """What it adds is held fixed, as its own derivative is not the network's."""
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

    torch.manual_seed(0)
    control = ControlNetModel.from_unet(sd.unet, conditioning_embedding_out_channels=(16, 32))
    for parameter in control.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    pipe = StableDiffusionControlNetPipeline(
        **{**sd.components, "controlnet": control.eval()}, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    without = called("sd", pipe, image=image, controlnet_conditioning_scale=0.0)
    with reg(pipe, rectify="vjp"):
        found = called("sd", pipe, image=image)
    with peer("sd", pipe):
        wanted = called("sd", pipe, image=image)
    assert distance(found, wanted) < 1e-5 < distance(without, called("sd", pipe, image=image))


def test_learned_variances_are_refused() -> None:
    from diffusers import DDPMScheduler

    pipe = tiny_pipelines.dit()
    pipe.scheduler = DDPMScheduler(variance_type="learned_range")
    with reg(pipe), pytest.raises(InputError, match="variances that the network learned"):
        called("dit", pipe)
    assert "_compiled_call_impl" not in pipe.transformer.__dict__


def test_it_is_whole_inside_of_inference_mode_and_half_precision() -> None:
    pipe = tiny_pipelines.sd()
    with peer("sd", pipe):
        wanted = called("sd", pipe)
    with torch.inference_mode(), reg(pipe, rectify="vjp"):
        assert distance(called("sd", pipe), wanted) < 1e-5
    pipe.to(torch.bfloat16)
    before = called("sd", pipe).float()
    with reg(pipe, rectify="vjp"):
        found = called("sd", pipe)
    assert found.dtype == torch.bfloat16 and distance(before, plain("sd")) > 1e-3
    assert distance(found.float(), wanted) < 2 * distance(before, plain("sd"))


def test_times_that_are_told_in_halves() -> None:
    pipe = tiny_pipelines.flux().to(torch.bfloat16)
    before = called("flux", pipe, steps=7).float()
    with reg(pipe, rectify="vjp"):
        found = called("flux", pipe, steps=7).float()
    pipe = pipeline("flux")
    with peer("flux", pipe):
        wanted = called("flux", pipe, steps=7)
    assert distance(found, wanted) < 2 * distance(before, called("flux", pipe, steps=7))


def test_inpainting_keeps_what_is_stacked_upon_the_state() -> None:
    from diffusers import StableDiffusionInpaintPipeline

    parts = tiny_pipelines.sd(in_channels=9).components
    pipe = StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    image, mask = torch.rand(2, 3, 16, 16), torch.zeros(2, 1, 16, 16)
    mask[..., :8] = 1
    with reg(pipe, rectify="vjp"):
        found = called("sd", pipe, image=image, mask_image=mask, strength=1.0)
    before = called("sd", pipe, image=image, mask_image=mask, strength=1.0)
    with peer("sd", pipe):
        wanted = called("sd", pipe, image=image, mask_image=mask, strength=1.0)
    assert distance(found, wanted) < 1e-5 < distance(before, wanted)
