"""Training of small networks on points in one or two dimensions, by the project's own Trainer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..models.toy import ToyClassifier, ToyNet, time_scale_of
from ..networks.denoisers import Denoiser
from ..networks.preconditioning import preconditioning
from ..schedules import EDM, VP, Schedule
from ..training import TrainConfig, Trainer
from .report import Report

__all__ = ["ToyClassifierTask", "ToyTask", "toy_denoiser", "train_toy"]


class _Points:
    """Points with labels, and noisy versions of them at random times of a schedule."""

    def __init__(
        self,
        points: Tensor,
        labels: Tensor | None,
        schedule: Schedule,
        log_sigma: tuple[float, float],
        name: str,
    ) -> None:
        if points.dim() != 2 or len(points) == 0:
            raise InputError("points", f"is {tuple(points.shape)}", "Give points (N, dim)")
        if labels is not None and labels.shape != points.shape[:1]:
            raise InputError(
                "labels", f"is {tuple(labels.shape)} for {len(points)} points", "Give one for each"
            )
        self.points, self.labels = points.double().cpu(), None if labels is None else labels.cpu()
        self.schedule, self.log_sigma, self.name = schedule, log_sigma, name
        self.size, self.dim = points.shape
        self.sigma_data = float(self.points.square().mean().sqrt())

    def noisy(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """(x_0, x_t, t, alpha, sigma) of some points: (B, dim) twice, (B,), (B, 1) twice.

        The times: integers (VP), lognormal noise levels (EDM), or uniform (flow).
        """
        x0, count = self.points[indices], len(indices)
        if isinstance(self.schedule, VP):
            last = int(self.schedule.prior_time)
            t = torch.randint(0, last + 1, (count,), generator=generator).double()
        elif isinstance(self.schedule, EDM):
            mean, std = self.log_sigma
            normal = torch.randn(count, generator=generator, dtype=torch.float64)
            t = (mean + std * normal).exp()
        else:
            t = torch.rand(count, generator=generator, dtype=torch.float64).clamp(min=1e-4)
        alpha, sigma = (
            torch.from_numpy(np.asarray(part))[:, None] for part in self.schedule(t.numpy())
        )
        noise = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
        return x0, alpha * x0 + sigma * noise, t, alpha, sigma


class ToyTask(_Points):
    """Denoising of points: mean square error of what the network returns, at random times.

    Args:
        points: (N, dim). labels: (N,) in [0, num_classes), or None.
        schedule: of training and sampling.
        prediction: one of preconditioning.PREDICTIONS.
        num_classes: 0 for an unconditional network.
        label_dropout: share of examples trained with the null label `num_classes`.
        log_sigma: mean and deviation of ln(sigma), for EDM schedules.
        name: of the run's folder.
        net: further arguments of ToyNet.
    """

    def __init__(
        self,
        points: Tensor,
        labels: Tensor | None,
        schedule: Schedule,
        prediction: str = "epsilon",
        *,
        num_classes: int = 0,
        label_dropout: float = 0.0,
        log_sigma: tuple[float, float] = (-1.2, 1.2),
        name: str = "toy",
        **net: Any,
    ) -> None:
        super().__init__(points, labels, schedule, log_sigma, name)
        if num_classes and labels is None:
            raise InputError("labels", "is None", f"Give labels in [0, {num_classes})")
        self.prediction, self.num_classes = prediction, num_classes
        self.label_dropout = label_dropout
        self.arguments = {"time_scale": time_scale_of(schedule, prediction), **net}

    def build(self) -> nn.Module:
        """A new ToyNet; with label dropout it has a row for the null label."""
        rows = self.num_classes + (self.label_dropout > 0) if self.num_classes else 0
        return ToyNet(self.dim, rows, **self.arguments)

    def loss(self, net: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Mean of |net - what it should return|^2; the target is exact in float64."""
        x0, x, t, alpha, sigma = self.noisy(indices, generator)
        c_in, c_skip, c_out = preconditioning(self.prediction, alpha, sigma, self.sigma_data)
        target = (x0 - c_skip * x) / c_out
        time = (sigma / alpha).log()[:, 0] / 4 if self.prediction == "edm" else t
        like, cond = next(net.parameters()), None
        if self.num_classes:
            assert self.labels is not None
            cond = self.labels[indices].clone()
            if self.label_dropout:
                dropped = torch.rand(len(indices), generator=generator) < self.label_dropout
                cond[dropped] = self.num_classes
            cond = cond.to(like.device)
        output = net((c_in * x).to(like), time.to(like), cond)
        return (output.float() - target.to(like)).square().mean()


class ToyClassifierTask(_Points):
    """Cross entropy of a ToyClassifier; its `kind`, and else the arguments of ToyTask."""

    def __init__(
        self,
        points: Tensor,
        labels: Tensor,
        schedule: Schedule,
        kind: str = "mlp",
        *,
        num_classes: int = 2,
        log_sigma: tuple[float, float] = (-1.2, 1.2),
        name: str = "classifier",
        **net: Any,
    ) -> None:
        super().__init__(points, labels, schedule, log_sigma, name)
        self.kind, self.num_classes, self.arguments = kind, num_classes, net

    def build(self) -> nn.Module:
        """A new ToyClassifier."""
        return ToyClassifier(self.dim, self.num_classes, self.kind, self.schedule, **self.arguments)

    def loss(self, net: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Mean cross entropy."""
        _, x, t, _, _ = self.noisy(indices, generator)
        assert self.labels is not None
        like = next(net.parameters())
        return F.cross_entropy(net(x.to(like), t.to(like)), self.labels[indices].to(like.device))


def train_toy(
    task: ToyTask | ToyClassifierTask,
    report: Report,
    *,
    steps: int,
    batch_size: int = 512,
    lr: float = 1e-3,
) -> nn.Module:
    """The averaged network after `steps` steps of AdamW, in eval mode, on the report's device.

    A run that was stopped goes on where it was; its files lie in report.work / task.name. The
    average forgets what is older than some hundredths of the run; the rate falls as a cosine.
    """
    config = TrainConfig(
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        warmup=min(100, steps // 10),
        weight_decay=0.0,
        ema_half_life=0.02 * steps * batch_size,
        seed=report.seed,
    )
    trainer = Trainer(task, config, report.work / task.name, device=report.device, show=False)
    if trainer.step < steps:
        report.say(f"training {task.name}: {steps} steps of {batch_size} points")
    if not trainer.run():
        raise KeyboardInterrupt  # the trainer saved its state; the same command goes on
    net = task.build().to(trainer.device)
    net.load_state_dict({**net.state_dict(), **trainer.average.state})
    return net.eval()


def toy_denoiser(net: nn.Module, task: ToyTask) -> Denoiser:
    """The Denoiser of a trained ToyNet; the null label is there if it was trained with dropout."""
    null = task.num_classes if task.label_dropout else None
    return Denoiser(
        net,
        task.prediction,
        task.schedule,
        (task.dim,),
        null,
        sigma_data=task.sigma_data,
        num_classes=task.num_classes or None,
        modules=[net],  # given, so that no evaluation has to look for it
    )
