"""Postprocessing flows of the fractal experiment: dedicated to one scale, and one for all."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ...models.toy import FLOW_TIMES, ToyNet
from ...postprocess import Postprocess, pool, train_postprocess
from ..report import Report
from .models import Data, Sizes, points

__all__ = ["FLOW_STEPS", "NEAREST", "apply", "one_pool", "train_flow"]

NEAREST = 20  # real neighbours, as in the paper's tables
FLOW_STEPS = 16  # of flow_heun
LABELS = 3  # rows of the label table: two classes, and the null label, which is not used
INPUT_SCALE = 200.0  # of ToyNet: the smallest branches are a twentieth of the data wide


def one_pool(sets: list[Tensor], count: int, generator: torch.Generator) -> Tensor:
    """`count` samples of each class, equal shares of several sets (2, n, 2): (2, count, 2)."""
    both = [pool([each[y] for each in sets], count, generator)[0] for y in (0, 1)]
    return torch.stack(both)


def train_flow(report: Report, name: str, samples: Tensor, data: Data, sizes: Sizes) -> Postprocess:
    """A class-conditional flow from samples (2, n, 2) to near real points of the same class."""
    report.say(f"training the flow {name}: {sizes.flow} steps of {sizes.flow_batch} points")
    net = partial(ToyNet, 2, LABELS, time_scale=FLOW_TIMES, input_scale=INPUT_SCALE)
    return train_postprocess(
        points(samples),
        points(data.train),
        report.work / f"flow-{name}",
        steps=sizes.flow,
        batch_size=sizes.flow_batch,
        lr=4e-3,
        labels=torch.arange(2).repeat_interleave(samples.shape[1]),
        real_labels=data.labels,
        num_classes=2,
        label_dropout=0.0,
        k=NEAREST,
        within_class=True,
        net=net,
        seed=report.seed,
        device=report.device,
        show=False,
        ema_half_life=0.02 * sizes.flow * sizes.flow_batch,
        flow={"solver": "flow_heun", "steps": FLOW_STEPS, "batch_size": 2048},
    )


def apply(flow: Postprocess, samples: Tensor) -> Tensor:
    """The flow's image of samples (2, n, 2)."""
    labels = torch.arange(2).repeat_interleave(samples.shape[1])
    return flow(points(samples), labels).unflatten(0, (2, samples.shape[1]))
