"""DiT-XL/2 (Peebles & Xie 2023, arXiv 2212.09748), as released, with random weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bench.cases import ModelCase
from bench.models.base import Loaded, created, labels
from reg_engine import Denoiser, schedules
from reg_engine.models.dit import DiT, sizes_of

__all__ = ["build"]

CLASSES = 1000
SMALL: dict[str, dict[str, Any]] = {
    "tiny": {"width": 32, "blocks": 2, "heads": 2},
    "shrunk": {"width": 192, "blocks": 6, "heads": 4},
}


def build(case: ModelCase, size: str, device: torch.device, dtype: torch.dtype) -> Loaded:
    """The transformer for `case.shape(size)`; label 1000 is the reference's."""
    shape = case.shape(size)
    sizes: dict[str, Any] = sizes_of("XL/2") if size == "real" else SMALL[size]

    def make() -> nn.Module:
        net = DiT(size=shape[-1], **sizes)
        for name, value in net.named_parameters():
            if "adaLN_modulation" in name:  # zero in a new network, whose blocks then do nothing
                nn.init.normal_(value, std=0.02)
        return net

    net = created(make, device, dtype)
    denoiser = Denoiser(
        net,
        "epsilon",
        schedules.VPLinear(spacing="linspace"),
        shape,
        null_cond=CLASSES,
        num_classes=CLASSES,
        learned_variance=True,
    )
    return Loaded(denoiser, lambda count: labels(count, CLASSES, device))
