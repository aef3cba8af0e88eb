"""The networks of the toy experiments: an MLP for points, and classifiers of noisy points.

`ToyNet` is the kind that REG's authors train in 1-D (sinusoidal embeddings of the input and of the
time, residual GELU blocks; `ToyNet(1)` has their 82,689 parameters).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import choice
from ..schedules import EDM, VP, Schedule

__all__ = ["ToyClassifier", "ToyNet", "time_scale_of"]

EDM_TIMES = 250.0  # ln(sigma)/4 spans about [-1.6, 1.1]: as wide as some hundred steps
FLOW_TIMES = 250.0


class ToyNet(nn.Module):
    """MLP on points, called as `net(x, t, cond)`: x (B, dim), t (B,), cond (B,) integers or None.

    Args:
        dim: dimensions of a point.
        num_labels: rows of the label table, the null label included; 0: cond is not looked at.
        width: of the hidden layers.
        blocks: residual blocks.
        embedding: sines and cosines for each coordinate and for the time, even.
        input_scale, time_scale: factors before the sinusoidal embeddings.
        outputs: numbers returned for each point; None = dim.
    """

    def __init__(
        self,
        dim: int,
        num_labels: int = 0,
        width: int = 128,
        blocks: int = 3,
        embedding: int = 128,
        input_scale: float = 25.0,
        time_scale: float = 1.0,
        outputs: int | None = None,
    ) -> None:
        super().__init__()
        self.input_scale, self.time_scale, self.embedding = input_scale, time_scale, embedding
        self.stem = nn.Linear((dim + 1) * embedding + dim, width)
        self.labels = nn.Embedding(num_labels, width) if num_labels else None
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.head = nn.Linear(width, dim if outputs is None else outputs)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        waves = [self._waves(self.input_scale * column) for column in x.unbind(-1)]
        waves.append(self._waves(self.time_scale * t.to(x.dtype).expand(x.shape[0])))
        h = self.stem(torch.cat([x, *waves], dim=-1))
        if self.labels is not None and cond is not None:
            h = h + self.labels(cond)
        h = F.gelu(h)
        for block in self.blocks:
            h = h + F.gelu(block(h))
        return self.head(h)

    def _waves(self, values: Tensor) -> Tensor:
        """Sines and cosines of `values` (B,), periods from 2 pi to 2 pi 10^4, (B, embedding)."""
        half = self.embedding // 2
        exponents = torch.arange(half, dtype=values.dtype, device=values.device)
        angles = values[:, None] * torch.exp(-math.log(1e4) / max(half - 1, 1) * exponents)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class ToyClassifier(nn.Module):
    """Logits (B, num_classes) of noisy points, called as `net(x, t)` in the schedule's time.

    Args:
        dim: dimensions of a point.
        num_classes: labels.
        kind: "linear" (one linear layer on concat(x, t), whose slope cannot follow the noise
            level) or "mlp" (a ToyNet without labels).
        schedule: says what t is: EDM's is turned into ln(sigma)/4.
        net: further arguments of ToyNet.
    """

    def __init__(
        self, dim: int, num_classes: int, kind: str, schedule: Schedule, **net: Any
    ) -> None:
        super().__init__()
        self.kind = choice("kind", kind, ("linear", "mlp"))
        self.logarithmic = isinstance(schedule, EDM)
        self.unit = 1.0 if self.logarithmic else 1.0 / schedule.prior_time
        if kind == "linear":
            self.net: nn.Module = nn.Linear(dim + 1, num_classes)
        else:
            net = {"time_scale": time_scale_of(schedule), **net}
            self.net = ToyNet(dim, outputs=num_classes, **net)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = t.clamp(min=1e-6).log() / 4 if self.logarithmic else t
        if self.kind == "linear":
            column = (self.unit * time).to(x.dtype).expand(x.shape[0])
            return self.net(torch.cat([x, column[:, None]], dim=-1))
        return self.net(x, time)


def time_scale_of(schedule: Schedule, prediction: str = "") -> float:
    """So that the embedding tells times apart: about the number of steps of a VP chain."""
    if prediction == "edm" or isinstance(schedule, EDM):
        return EDM_TIMES
    return 1.0 if isinstance(schedule, VP) else FLOW_TIMES
