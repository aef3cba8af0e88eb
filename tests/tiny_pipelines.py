"""Pipelines of diffusers with tiny random weights, built offline: none is downloaded.

Each function builds its pipeline anew, with the same weights every time, in evaluation mode and
silent. Latents are 8 x 8 where the caller asks for 16 x 16 pictures (`SIZE`). A test that uses
these starts with pytest.importorskip("diffusers") and pytest.importorskip("transformers").
"""

from __future__ import annotations

from typing import Any

import torch
from tiny_parts import clip_text, clip_tokenizer, flow_vae, t5_text, t5_tokenizer, vae

SIZE = {"height": 16, "width": 16}  # of pictures whose latents are 8 x 8
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def _quiet(pipe: Any) -> Any:
    """The pipeline in evaluation mode and frozen, without a progress bar."""
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    return pipe


def flow_scheduler() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(shift=3.0)


def unet2d() -> Any:
    """A class-conditional UNet2DModel: 10 classes, and label 10 for none."""
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        num_class_embeds=11,
    )
    return unet.eval().requires_grad_(False)


def sd(scheduler: Any = None, **unet: Any) -> Any:
    """As Stable Diffusion 1.5."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    torch.manual_seed(0)
    net = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        norm_num_groups=8,
        **unet,
    )
    scheduler = scheduler or DDIMScheduler(**BETAS, clip_sample=False, steps_offset=1)
    return _quiet(
        StableDiffusionPipeline(
            vae=vae(),
            text_encoder=clip_text(),
            tokenizer=clip_tokenizer(),
            unet=net,
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    )


def sd_v() -> Any:
    """As Stable Diffusion 2.1 at 768: v-prediction."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        **BETAS, clip_sample=False, steps_offset=1, prediction_type="v_prediction"
    )
    return sd(scheduler, use_linear_projection=True)


def sdxl(scheduler: Any = None) -> Any:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=32 + 6 * 8,
        cross_attention_dim=64,
    )
    scheduler = scheduler or EulerDiscreteScheduler(
        **BETAS, steps_offset=1, timestep_spacing="leading"
    )
    return _quiet(
        StableDiffusionXLPipeline(
            vae=vae(0.13025),
            text_encoder=clip_text(),
            text_encoder_2=clip_text(projected=True),
            tokenizer=clip_tokenizer(),
            tokenizer_2=clip_tokenizer(),
            unet=unet,
            scheduler=scheduler,
            add_watermarker=False,
        )
    )


def dit() -> Any:
    """Classes, and learned variances beside the noise."""
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    torch.manual_seed(0)
    net = DiTTransformer2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        num_embeds_ada_norm=1000,
        norm_num_groups=4,
    )
    names = {str(i): f"class {i}" for i in range(1000)}
    scheduler = DDIMScheduler(clip_sample=False)
    return _quiet(DiTPipeline(net, vae=vae(), scheduler=scheduler, id2label=names))


def pixart(sigma: bool = False, sample_size: int = 8) -> Any:
    """PixArt-alpha, or Sigma; learned variances beside the noise. 128: told the picture's size."""
    import diffusers

    torch.manual_seed(0)
    net = diffusers.PixArtTransformer2DModel(
        sample_size=sample_size,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=32,
        in_channels=4,
        cross_attention_dim=24,
        out_channels=8,
    )
    kind = diffusers.PixArtSigmaPipeline if sigma else diffusers.PixArtAlphaPipeline
    return _quiet(
        kind(
            tokenizer=t5_tokenizer(),
            text_encoder=t5_text(),
            vae=vae(),
            transformer=net,
            scheduler=diffusers.DPMSolverMultistepScheduler(),
        )
    )


def sd3() -> Any:
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

    torch.manual_seed(0)
    net = SD3Transformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=64,
        pooled_projection_dim=64,
        pos_embed_max_size=8,
    )
    return _quiet(
        StableDiffusion3Pipeline(
            transformer=net,
            scheduler=flow_scheduler(),
            vae=flow_vae(),
            text_encoder=clip_text(projected=True),
            text_encoder_2=clip_text(projected=True),
            text_encoder_3=t5_text(width=64),
            tokenizer=clip_tokenizer(),
            tokenizer_2=clip_tokenizer(),
            tokenizer_3=t5_tokenizer(),
        )
    )


def flux(guidance_embeds: bool = False) -> Any:
    """As FLUX.1-schnell, or FLUX.1-dev with its distilled guidance."""
    from diffusers import FluxPipeline, FluxTransformer2DModel

    torch.manual_seed(0)
    net = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=guidance_embeds,
    )
    return _quiet(
        FluxPipeline(
            transformer=net,
            scheduler=flow_scheduler(),
            vae=flow_vae(),
            text_encoder=clip_text(),
            text_encoder_2=t5_text(),
            tokenizer=clip_tokenizer(),
            tokenizer_2=t5_tokenizer(),
        )
    )


def auraflow() -> Any:
    from diffusers import AuraFlowPipeline, AuraFlowTransformer2DModel

    torch.manual_seed(0)
    net = AuraFlowTransformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pos_embed_max_size=64,
    )
    for weight in net.single_transformer_blocks.parameters():
        weight.data *= 3  # else its text hardly counts
    return _quiet(
        AuraFlowPipeline(
            tokenizer=t5_tokenizer(),
            text_encoder=t5_text("UMT5"),
            vae=vae(0.13025),
            transformer=net,
            scheduler=flow_scheduler(),
        )
    )


def wan(scheduler: Any = None) -> Any:
    """Video: latents of 16 channels, 3 frames for 9 pictures, 8 x 8 for 64 x 64."""
    from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel

    torch.manual_seed(0)
    net = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=32,
        freq_dim=256,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
    )
    decoder = AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    return _quiet(
        WanPipeline(
            tokenizer=t5_tokenizer(),
            text_encoder=t5_text("UMT5"),
            vae=decoder,
            transformer=net,
            scheduler=scheduler or flow_scheduler(),
        )
    )
