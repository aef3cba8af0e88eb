"""Stable Diffusion U-Nets from diffusers, with random weights and random text embeddings.

Sizes are those of the published configurations: 1.4 and 2.1 (Rombach et al. 2022, arXiv
2112.10752), XL (Podell et al. 2023, arXiv 2307.01952).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bench.cases import ModelCase
from bench.models.base import Loaded, created
from reg_engine import Denoiser, schedules
from reg_engine.conditioning import Cond

__all__ = ["CONFIGS", "build"]

TOKENS = 77  # of a prompt
POOLED, TIME_IDS = 1280, 6  # SD-XL's pooled text embedding; sizes and crop of the picture

_DOWN, _UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
_FOUR_LEVELS = {
    "down_block_types": (_DOWN, _DOWN, _DOWN, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", _UP, _UP, _UP),
    "block_out_channels": (320, 640, 1280, 1280),
}
# In diffusers `attention_head_dim` of these models is the number of heads.
CONFIGS: dict[str, dict[str, Any]] = {
    "sd-1.4": {**_FOUR_LEVELS, "cross_attention_dim": 768, "attention_head_dim": 8},
    "sd-2.1": {
        **_FOUR_LEVELS,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    "sd-xl": {
        "down_block_types": ("DownBlock2D", _DOWN, _DOWN),
        "up_block_types": (_UP, _UP, "UpBlock2D"),
        "block_out_channels": (320, 640, 1280),
        "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "transformer_layers_per_block": (1, 2, 10),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": POOLED + 256 * TIME_IDS,
    },
}
PREDICTIONS = {"sd-1.4": "epsilon", "sd-2.1": "v_prediction", "sd-xl": "epsilon"}


def _config(key: str, size: str) -> dict[str, Any]:
    """The published configuration, or a narrow one of the same kind."""
    config = {"in_channels": 4, "out_channels": 4, **CONFIGS[key]}
    if size == "real":
        return config
    levels = len(config["block_out_channels"])
    width = {"tiny": 32, "shrunk": 64}[size]
    # Two heads or more, of 16 channels: the same number at every level would need equal widths.
    config["block_out_channels"] = tuple(width * min(2**i, 4) for i in range(levels))
    config["attention_head_dim"] = tuple(w // 16 for w in config["block_out_channels"])
    config["cross_attention_dim"] = {"tiny": 32, "shrunk": 128}[size]
    config["layers_per_block"] = 1
    if "transformer_layers_per_block" in config:
        config["transformer_layers_per_block"] = {"tiny": (1, 1, 1), "shrunk": (1, 1, 2)}[size]
    return config


class _UNet(nn.Module):
    """net(x, t, cond) with cond the dict of the U-Net's own tensors."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
        added = {name: cond[name] for name in ("text_embeds", "time_ids") if name in cond}
        out = self.unet(
            x,
            t,
            encoder_hidden_states=cond["encoder_hidden_states"],
            added_cond_kwargs=added or None,
            return_dict=False,
        )[0]
        assert isinstance(out, Tensor)
        return out


def build(case: ModelCase, size: str, device: torch.device, dtype: torch.dtype) -> Loaded:
    """The U-Net of `case.key`; the empty prompt is one more random embedding."""
    from diffusers import UNet2DConditionModel

    config, shape = _config(case.key, size), case.shape(size)
    net = created(lambda: _UNet(UNet2DConditionModel(**config)), device, dtype)

    def text(count: int) -> dict[str, Tensor]:
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        own = {
            "encoder_hidden_states": torch.randn(
                count, TOKENS, config["cross_attention_dim"], **options
            )
        }
        if "addition_embed_type" in config:
            own["text_embeds"] = torch.randn(count, POOLED, **options)
            pixels = float(8 * shape[-1])
            ids = torch.tensor([pixels, pixels, 0.0, 0.0, pixels, pixels], **options)
            own["time_ids"] = ids.repeat(count, 1)
        return own

    null = text(1)
    denoiser = Denoiser(net, PREDICTIONS[case.key], schedules.ScaledLinear(), shape, null_cond=null)

    def cond(count: int) -> Cond:
        torch.manual_seed(1)
        return text(count)

    return Loaded(denoiser, cond)
