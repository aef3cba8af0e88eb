"""EDM2 U-Nets with random weights, settled as a loaded network is."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bench.cases import ModelCase
from bench.models.base import Loaded, created, labels
from reg_engine import Denoiser, schedules
from reg_engine.models.edm2 import EDM2

__all__ = ["CLASSES", "build"]

CLASSES = 1000
WIDTHS = {"edm2-s": 192, "edm2-xxl": 448}
SMALL: dict[tuple[str, str], dict[str, Any]] = {
    ("tiny", "edm2-s"): {"channels": 64, "attention": (4,)},
    ("tiny", "edm2-xxl"): {"channels": 128, "attention": (4,)},
    ("shrunk", "edm2-s"): {"channels": 64, "attention": (8,)},
    ("shrunk", "edm2-xxl"): {"channels": 128, "attention": (8,)},
}


def build(case: ModelCase, size: str, device: torch.device, dtype: torch.dtype) -> Loaded:
    """The U-Net for `case.shape(size)`; label 1000 is the reference's."""
    shape = case.shape(size)
    sizes: dict[str, Any] = {"channels": WIDTHS[case.key]}
    if size != "real":
        sizes = {"multipliers": (1, 2), "blocks": 1, **SMALL[size, case.key]}

    def make() -> nn.Module:
        net = EDM2(image_channels=shape[0], size=shape[-1], num_labels=CLASSES + 1, **sizes)
        for name, value in net.named_parameters():
            if name.endswith("gain"):  # zero in a new network, which then answers zero
                nn.init.ones_(value)
        return net.settle()

    net = created(make, device, dtype)
    denoiser = Denoiser(
        net,
        "edm",
        schedules.EDM(),
        shape,
        null_cond=CLASSES,
        num_classes=CLASSES,
    )
    return Loaded(denoiser, lambda count: labels(count, CLASSES, device))
