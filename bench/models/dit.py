"""DiT-XL/2 (Peebles & Xie 2023, arXiv 2212.09748) from diffusers, with random weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bench.cases import ModelCase
from bench.models.base import Loaded, created, labels
from reg_engine import Denoiser, schedules

__all__ = ["CONFIG", "build"]

CLASSES = 1000

# Table 1 of the paper, XL, and its training on ImageNet; `out_channels` holds a learned variance.
CONFIG: dict[str, Any] = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 28,
    "patch_size": 2,
    "num_embeds_ada_norm": CLASSES,
    "norm_type": "ada_norm_zero",
    "norm_elementwise_affine": False,
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
}
CHANGED: dict[str, dict[str, Any]] = {
    "tiny": {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2},
    "shrunk": {"num_attention_heads": 4, "attention_head_dim": 48, "num_layers": 6},
    "real": {},
}


class _Epsilon(nn.Module):
    """net(x, t, labels) -> epsilon: the learned variance is left out."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        out = self.transformer(x, timestep=t, class_labels=cond, return_dict=False)[0]
        return out[:, : x.shape[1]]


def build(case: ModelCase, size: str, device: torch.device, dtype: torch.dtype) -> Loaded:
    """The transformer for `case.shape(size)`; null label 1000."""
    from diffusers import DiTTransformer2DModel

    shape = case.shape(size)
    config = {**CONFIG, **CHANGED[size], "sample_size": shape[-1]}
    net = created(lambda: _Epsilon(DiTTransformer2DModel(**config)), device, dtype)
    denoiser = Denoiser(
        net,
        "epsilon",
        schedules.VPLinear(),
        shape,
        null_cond=CLASSES,
        num_classes=CLASSES,
    )
    return Loaded(denoiser, lambda count: labels(count, CLASSES, device))
