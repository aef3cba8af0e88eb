"""Small networks for tests: cheap, smooth, label-dependent, and a record of every call."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reg_engine import Denoiser, schedules
from reg_engine.guidance.references import Unconditional
from reg_engine.networks.point import Point
from reg_engine.solvers import table

SHAPE = (1, 4, 4)
CLASSES = 3


class TinyNet(nn.Module):
    """Two layers; `calls` holds the labels of every evaluation (on the CPU: looking costs a
    sync)."""

    def __init__(self, size: int = 16, width: int = 24) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.enter = nn.Linear(size, width)
        self.label = nn.Embedding(CLASSES + 1, width)
        self.leave = nn.Linear(width, size)
        self.calls: list[list[int]] = []

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        if not cond.is_cuda:
            self.calls.append(cond.tolist())
        h = self.enter(x.flatten(1)) + self.label(cond) + t[:, None].cos()
        return self.leave(torch.tanh(h)).reshape_as(x)


class Shy(TinyNet):
    """The labels of class 0 give no delta at first: the null label's row is the same."""

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        late = (t < 0.5).to(x.dtype)[:, None]
        h = self.enter(x.flatten(1)) + late * self.label(cond)
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


def flow_point(batch: int = 4) -> Point:
    """A point half way down a flow, with random states."""
    schedule = schedules.Flow()
    g = torch.Generator().manual_seed(1)
    x = torch.randn(batch, *SHAPE, dtype=torch.float64, generator=g)
    row = table("flow_euler", schedule, 8).rows[3]
    labels = torch.zeros(batch, dtype=torch.long)
    return Point(x, row, 3, tiny("flow", schedule), Unconditional(), labels, {})


def pair(point: Point, seed: int = 2) -> tuple[Tensor, Tensor]:
    """Random cond and ref at the point."""
    g = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(point.x.shape, dtype=torch.float64, generator=g) for _ in range(2))
