"""Networks whose layers are perturbed: ours, and a small DiT of diffusers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reg_engine import (
    Denoiser,
    Guidance,
    Guide,
    schedules,
)
from reg_engine.models.unet import UNet

LABELS = torch.tensor([0, 1, 2])


QUIET: dict[str, Any] = {"solver": "euler", "steps": 3, "progress": False, "dtype": torch.float64}


def filled(net: nn.Module, seed: int = 3) -> nn.Module:
    """Every weight drawn: zeros of an initialisation would hide a layer."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        values = torch.randn(parameter.shape, generator=generator)
        parameter.data.copy_(values / (values.numel() / len(values)) ** 0.5)
    return net.double().eval()


def ours() -> Denoiser:
    net = filled(UNet(channels=(16, 32), blocks=(1, 1, 2, 1), num_labels=4))
    return Denoiser(net, "edm", schedules.EDM(), (1, 8, 8), 3, num_classes=3)


def state(denoiser: Denoiser, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, *denoiser.sample_shape, generator=generator, dtype=torch.float64)


def ref_of(
    denoiser: Denoiser, reference: Any, cond: Any = LABELS, x: Tensor | None = None
) -> Tensor:
    """The reference's estimate at noise level 1: scale 0 is the reference alone."""
    guide = Guide(denoiser, cond, guidance=Guidance(0.0, reference, None))
    found = guide(state(denoiser) if x is None else x, 1.0)
    assert guide.stats.nfe == 1
    return found


def softmaxed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v


def models() -> Any:
    return pytest.importorskip("diffusers.models", reason="diffusers is a test peer")


def dit() -> tuple[Denoiser, nn.Module]:
    net: Any = models().DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=2, out_channels=2, num_layers=3,
        sample_size=8, patch_size=2, num_embeds_ada_norm=4,
    )  # fmt: skip
    net = filled(net)

    def call(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return net(x, timestep=t, class_labels=cond).sample

    schedule = schedules.EDM()
    return Denoiser(call, "edm", schedule, (2, 8, 8), 3, num_classes=3), net
