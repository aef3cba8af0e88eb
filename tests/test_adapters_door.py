"""What denoiser_of refuses, each by one error that names the argument and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
import tiny_pipelines as tiny
import torch
from family_cases import CASES
from torch import nn

import reg_engine
from reg_engine import InputError, denoiser_of

DDIM = diffusers.DDIMScheduler(clip_sample=False)
FLOW = diffusers.FlowMatchEulerDiscreteScheduler()


def sdxl_lacks() -> None:
    _, cond = CASES["sdxl"].denoiser(tiny.sdxl())
    short = {"encoder_hidden_states": cond["encoder_hidden_states"]}
    null = {"encoder_hidden_states": torch.zeros(1, 77, 64)}
    reg_engine.sample(denoiser_of(tiny.sdxl(), null_cond=null), short, progress=False)


def asked(name: str, change: Callable[[Any], Any]) -> Callable[[], None]:
    """A call whose conditioning was changed."""

    def call() -> None:
        model, cond = CASES[name].denoiser(CASES[name].build())
        reg_engine.sample(model, change(cond), scale=1.0, progress=False)

    return call


def unet(**config: Any) -> Any:
    return tiny.sd(None, **config).unet


def beside(pipe: Any, part: str) -> Any:
    pipe.register_modules(**{part: nn.Linear(1, 1)})
    return pipe


def controlled() -> Any:
    pipe = tiny.sd()
    parts = {name: part for name, part in pipe.components.items() if name != "image_encoder"}
    net = diffusers.ControlNetModel.from_unet(pipe.unet, conditioning_channels=3)
    return diffusers.StableDiffusionControlNetPipeline(
        **parts, controlnet=net, requires_safety_checker=False
    )


def headless() -> Any:
    pipe = tiny.wan()
    pipe.transformer = None
    return pipe


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no scheduler": (
        lambda: denoiser_of(tiny.unet2d()),
        "scheduler: is None: a UNet2DModel does not say its noise schedule. Give denoiser_of",
    ),
    "no scheduler in a call": (
        lambda: reg_engine.sample(tiny.unet2d(), 3),
        "scheduler: is None: a UNet2DModel",
    ),
    "a number as scheduler": (
        lambda: denoiser_of(tiny.unet2d(), scheduler=3),
        "scheduler: is a int. Give denoiser_of",
    ),
    "a dict without a class": (
        lambda: denoiser_of(tiny.unet2d(), scheduler={"beta_start": 0.1}),
        "config: has no '_class_name'",
    ),
    "a scheduler of no known class": (
        lambda: denoiser_of(tiny.unet2d(), scheduler=diffusers.CogVideoXDDIMScheduler()),
        "_class_name: unknown name 'CogVideoXDDIMScheduler'",
    ),
    "a distilled model's scheduler": (
        lambda: denoiser_of(tiny.sd(diffusers.LCMScheduler())),
        "_class_name: 'LCMScheduler'",
    ),
    "a chain's scheduler for a flow": (
        lambda: denoiser_of(tiny.sd3().transformer, scheduler=DDIM),
        "scheduler: a DDIMScheduler is that of a noised chain, and the SD3Transformer2DModel is",
    ),
    "a prediction of no known kind": (
        lambda: denoiser_of(
            tiny.unet2d(),
            scheduler={**DDIM.config, "_class_name": "DDIMScheduler", "prediction_type": "noise"},
        ),
        "scheduler: a DDIMScheduler with prediction_type='noise' is not known",
    ),
    "epsilon of a flow": (
        lambda: denoiser_of(
            tiny.unet2d(), scheduler=diffusers.UniPCMultistepScheduler(use_flow_sigmas=True)
        ),
        "prediction_type='epsilon' is not known .known: flow_prediction",
    ),
    "v of EDM": (
        lambda: denoiser_of(
            tiny.unet2d(), scheduler=diffusers.EDMEulerScheduler(prediction_type="v_prediction")
        ),
        "a EDMEulerScheduler with prediction_type='v_prediction'",
    ),
    "continuous times of Euler": (
        lambda: denoiser_of(
            tiny.unet2d(),
            scheduler=diffusers.EulerDiscreteScheduler(
                timestep_type="continuous",
                prediction_type="v_prediction",
                use_karras_sigmas=True,
                sigma_min=0.002,
                sigma_max=700.0,
            ),
        ),
        "a EulerDiscreteScheduler with prediction_type='v_prediction'",
    ),
    "a network of no family": (
        lambda: denoiser_of(nn.Linear(1, 1), scheduler=DDIM),
        r"model: a Linear does not say what it predicts.*need no wrapping: AuraFlow.*WanTrans",
    ),
    "an autoencoder": (
        lambda: reg_engine.sample(tiny.sd().vae, 3),
        "model: a AutoencoderKL does not say",
    ),
    "inpainting": (
        lambda: denoiser_of(unet(in_channels=9), scheduler=DDIM),
        "model: is a network that takes 9 channels and returns 4: it is told a picture",
    ),
    "a distilled U-Net": (
        lambda: denoiser_of(unet(time_cond_proj_dim=8), scheduler=DDIM),
        "time_cond_proj_dim=8: it is told its guidance, which was distilled into it. Wrap it",
    ),
    "a U-Net of labels and text": (
        lambda: denoiser_of(unet(num_class_embeds=4), scheduler=DDIM),
        "model: is a UNet2DConditionModel with num_class_embeds=4",
    ),
    "a pipeline with a ControlNet": (
        lambda: denoiser_of(controlled()),
        "model: the pipeline has a controlnet beside its unet, and would lose it here",
    ),
    "two experts": (
        lambda: denoiser_of(beside(tiny.wan(), "transformer_2")),
        "the pipeline has a transformer_2 beside its transformer",
    ),
    "no network": (
        lambda: denoiser_of(headless()),
        "model: the pipeline has no unet and no transformer",
    ),
    "too few sizes": (
        lambda: denoiser_of(tiny.dit(), sample_shape=(4, 8)),
        r"sample_shape: is \(4, 8\) for the DiTTransformer2DModel. Give \(4, \*size\) with 2 sizes",
    ),
    "other channels": (
        lambda: denoiser_of(tiny.sd(), sample_shape=(3, 8, 8)),
        r"sample_shape: is \(3, 8, 8\) for the UNet2DConditionModel",
    ),
    "a part of a patch": (
        lambda: denoiser_of(tiny.flux(), sample_shape=(4, 8, 9)),
        r"sample_shape: is \(4, 8, 9\) for the FluxTransformer2DModel.*multiples of \(2, 2\)",
    ),
    "packed": (
        lambda: denoiser_of(tiny.flux(), sample_shape=(16, 16)),
        r"sample_shape: is \(16, 16\) for the FluxTransformer2DModel",
    ),
    "distilled guidance without its number": (
        lambda: reg_engine.sample(tiny.flux(True), {}),
        "embedded_guidance: is needed.*Give denoiser_of.model, embedded_guidance=3.5",
    ),
    "a number for none": (
        lambda: denoiser_of(tiny.flux(), embedded_guidance=3.5),
        "embedded_guidance: is given to a FluxTransformer2DModel without distilled guidance",
    ),
    "a number for a U-Net": (
        lambda: denoiser_of(tiny.sd(), embedded_guidance=3.5),
        "embedded_guidance: is given to a UNet2DConditionModel",
    ),
    "guidance below 0": (
        lambda: denoiser_of(tiny.flux(True), embedded_guidance=-1),
        "embedded_guidance: is -1. Give",
    ),
    "distilled, and no negative prompt": (
        lambda: reg_engine.sample(
            denoiser_of(tiny.flux(True), embedded_guidance=3.5, sample_shape=(4, 8, 8)),
            CASES["flux"].told(tiny.flux(True))[0],
            progress=False,
        ),
        "null_cond: the model has none, .* Give Denoiser or denoiser_of a",
    ),
    "no added conditions": (
        sdxl_lacks,
        "cond: lacks 'text_embeds', 'time_ids' for the UNet2DConditionModel. Give a dict of ten",
    ),
    "a tensor where three are needed": (
        asked("sdxl", lambda cond: cond["encoder_hidden_states"]),
        "cond: is a tensor for the UNet2DConditionModel. Give a dict",
    ),
    "no pooled": (
        asked("sd3", lambda cond: {**cond, "pooled_projections": None}),
        "cond: lacks 'pooled_projections' for the SD3Transformer2DModel",
    ),
    "nothing": (asked("wan", lambda cond: None), "cond: lacks 'encoder_hidden_states'"),
    "a keyword that it has not": (
        asked("pixart_alpha", lambda cond: {**cond, "pooled": torch.ones(2, 3)}),
        "cond: has 'pooled' for the PixArt.*; it takes 'encoder_attention_mask' besides",
    ),
    "rows that differ": (
        asked("flux", lambda cond: {**cond, "pooled_projections": torch.ones(3, 32)}),
        r"cond\['encoder_hidden_states'\]: has 2 rows for 3 seeds",
    ),
    "prompts": (asked("sd", lambda cond: ["a cat"]), "prompts need a text encoder"),
    "a scheduler beside a Denoiser": (
        lambda: denoiser_of(denoiser_of(tiny.dit()), scheduler=DDIM),
        "scheduler: is given beside a Denoiser, which says all of a model. Leave it out",
    ),
    "an option of folders": (
        lambda: denoiser_of(tiny.dit(), variant="fp16"),
        "variant: is given beside a DiTPipeline",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        call()


def test_a_size_that_is_not_known() -> None:
    net = diffusers.UNet2DModel(
        sample_size=None, block_out_channels=(8,), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    )  # fmt: skip
    with pytest.raises(InputError, match=r"sample_shape: the UNet2DModel.*Give \(3, height, widt"):
        denoiser_of(net, scheduler=DDIM)
    model = denoiser_of(net, scheduler=DDIM, sample_shape=(3, 4, 6))
    choices = {"scale": 1.0, "seeds": range(2), "steps": 2, "progress": False}
    assert reg_engine.sample(model, None, **choices).samples.shape == (2, 3, 4, 6)
    with pytest.raises(InputError, match="cond: has 'y' for the UNet2DModel. Give None"):
        reg_engine.sample(model, {"y": torch.ones(2)}, **choices)


def test_usual_sizes() -> None:
    assert denoiser_of(tiny.flux()).sample_shape == (4, 128, 128)
    assert denoiser_of(tiny.wan()).sample_shape == (16, 21, 60, 104)
    assert denoiser_of(tiny.sd()).sample_shape == (4, 8, 8)
    assert denoiser_of(tiny.dit()).num_classes == denoiser_of(tiny.dit()).null_cond == 1000
    net = unet()
    net.register_to_config(sample_size=[8, 16])
    assert denoiser_of(net, scheduler=DDIM).sample_shape == (4, 8, 16)


def test_only_the_network_is_held() -> None:
    """Not what hooks keep beside it."""
    pipe = tiny.dit()
    pipe.transformer.kept = [nn.Linear(1, 1)]
    assert denoiser_of(pipe).modules == (pipe.transformer,)


def test_an_object_that_has_a_denoiser() -> None:
    model = denoiser_of(tiny.dit())

    class Holder:
        def denoiser(self) -> Any:
            return model

    assert denoiser_of(Holder()) is model and denoiser_of(model) is model
    with pytest.raises(InputError, match="null_cond: is given beside a Holder"):
        denoiser_of(Holder(), null_cond=3)


def test_embeddings_follow_the_networks_dtype() -> None:
    """Half a network, and embeddings of a text encoder in float32."""
    pipe = tiny.sd3()
    case = CASES["sd3"]
    pipe.transformer.to(torch.bfloat16)
    model, cond = case.denoiser(pipe)
    assert model.dtype == torch.bfloat16 and cond["pooled_projections"].dtype == torch.float32
    choices = {"scale": 3.0, "rectify": "jvp", "steps": 2, "progress": False}
    half = reg_engine.sample(model, cond, noise=case.noise(), **choices).samples
    whole, _ = case.denoiser(case.build())
    wanted = reg_engine.sample(whole, cond, noise=case.noise(), **choices).samples
    assert float((half - wanted).norm() / wanted.norm()) < 0.02
