"""A network whose Jacobian is dense, and a point at it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reg_engine import Denoiser, schedules
from reg_engine.guidance.references import Unconditional
from reg_engine.networks.counter import Counter
from reg_engine.networks.point import Point
from reg_engine.noise import SampleNoise
from reg_engine.solvers import table

SHAPE = (2, 3)


class Net(nn.Module):
    """Smooth, not symmetric, label-dependent; blocks in a ModuleList, attention inside."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.enter = nn.Linear(6, width)
        self.label = nn.Embedding(4, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))
            for _ in range(3)
        )
        self.leave = nn.Linear(width, 6)
        self.calls: list[int] = []

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        self.calls.append(x.shape[0])
        h = self.enter(x.flatten(1)) + self.label(cond) + t[:, None].sin()
        for block in self.blocks:
            h = h + block(h)
        q = h.reshape(len(x), 1, 3, 4)
        h = h + nn.functional.scaled_dot_product_attention(q, q, q).flatten(1)
        return self.leave(h).reshape_as(x)


def point(prediction: str = "epsilon", batch: int = 3, net: nn.Module | None = None) -> Point:
    schedule = schedules.VPLinear()
    net = Net().double() if net is None else net
    denoiser = Denoiser(net, prediction, schedule, SHAPE, null_cond=3, num_classes=3)
    seeds = list(range(batch))
    x = torch.randn(batch, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    row = table("ddim", schedule, 10).rows[4]
    for p in net.parameters():
        p.requires_grad_(False)
    return Point(
        x,
        row,
        4,
        denoiser,
        Unconditional(),
        torch.arange(batch) % 3,
        {},
        Counter(),
        SampleNoise(seeds, "probes"),
    )
