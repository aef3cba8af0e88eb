"""A small labelled network of two numbers, an adapter of it with random numbers, and a short
distillation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reg_engine import Denoiser, schedules
from reg_engine.distillation import Distillation
from reg_engine.networks.adapter import Adapter, belonging
from reg_engine.networks.lowrank import LowRank

WIDTH = 16
TINY = {"paths": 2, "samples": 8, "pairs": 8, "parts": 2, "solver_steps": (3, 5), "share": 1.0}
SHORT = Distillation(scales=(1.0, 4.0), steps=6, round_steps=2, student_from=0.5, **TINY)


class Net(nn.Module):
    """x (B, 2), t (B,), label (B,) -> (B, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.time = nn.Linear(2, WIDTH), nn.Linear(1, WIDTH, bias=False)
        self.label, self.out = nn.Embedding(3, WIDTH), nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        h = self.enter(x) + self.time(t[:, None].to(x.dtype)) + self.label(label)
        return self.out(torch.tanh(h))


def model(seed: int = 0, **kwargs: object) -> Denoiser:
    torch.manual_seed(seed)
    chosen = {"schedule": schedules.EDM(), "num_classes": 2, "null_cond": 2} | kwargs
    return Denoiser(Net(), "edm", sample_shape=(2,), **chosen)


def change(denoiser: Denoiser, share: float = 1.0, most: float = 4.0, seed: int = 1) -> LowRank:
    """With numbers of its own in every part."""
    found = LowRank.of(denoiser.modules, share, most)
    generator = torch.Generator().manual_seed(seed)
    for parameter in found.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)
    return found.requires_grad_(False)


def adapter(denoiser: Denoiser, scales: tuple[float, float] = (1.0, 4.0)) -> Adapter:
    return Adapter(change(denoiser), scales, belonging(denoiser), {"teacher": "vjp"})


def labels(count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(2, (count,), generator=generator)
