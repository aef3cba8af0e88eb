"""Small networks for tests: cheap, smooth, label-dependent, and a record of every call."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reg_engine import Denoiser, schedules

SHAPE = (1, 4, 4)
CLASSES = 3


class TinyNet(nn.Module):
    """Two layers; `calls` holds (rows, labels) of every evaluation."""

    def __init__(self, size: int = 16, width: int = 24) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.enter = nn.Linear(size, width)
        self.label = nn.Embedding(CLASSES + 1, width)
        self.leave = nn.Linear(width, size)
        self.calls: list[list[int]] = []

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        self.calls.append(cond.tolist())
        h = self.enter(x.flatten(1)) + self.label(cond) + t[:, None].cos()
        return self.leave(torch.tanh(h)).reshape_as(x)


def tiny(
    prediction: str = "edm",
    schedule: schedules.Schedule | None = None,
    net: nn.Module | None = None,
    null_cond: int | None = CLASSES,
) -> Denoiser:
    """A denoiser around TinyNet (EDM schedule)."""
    return Denoiser(
        net or TinyNet(),
        prediction,
        schedule or schedules.EDM(),
        SHAPE,
        null_cond,
        num_classes=CLASSES,
    )
