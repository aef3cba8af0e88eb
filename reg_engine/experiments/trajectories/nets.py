"""The trained parts of the trajectories experiment, and how wrong they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...networks.denoisers import Denoiser
from ...oracles import GaussianMixture
from ...schedules import VPLinear
from ..classifier_guidance import ClassifierNet, ExactClassifier, bayes_denoiser
from ..report import Report
from ..toys import ToyClassifierTask, ToyTask, toy_denoiser, train_toy
from .paths import quantiles

MEAN, STD = 1.0, 0.6  # classes N(-m, s^2) and N(m, s^2), equally likely
SCHEDULE = VPLinear()
NET: dict[str, Any] = {"width": 64, "embedding": 64, "input_scale": 4.0}
LEVELS = tuple(range(0, 1000, 37))  # the times that errors are averaged over: 0 .. 999


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    points: int  # a class, for training
    training: int  # steps of the denoiser; the classifiers take half as many
    count: int  # starts a class
    steps: int  # of Heun, for every trajectory
    scales: tuple[float, ...]


FULL = Size(16384, 10_000, 256, 40, (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0))
QUICK = Size(4096, 1200, 64, 20, (1.0, 2.0, 4.0, 8.0))


@dataclass(frozen=True)
class Parts:
    """What trajectories are made of.

    Args:
        denoisers: "exact" and "learned"; labels 0 and 1, and the null label.
        classifiers: "exact", "mlp" and "linear": net(x, t) -> logits.
    """

    denoisers: dict[str, Denoiser]
    classifiers: dict[str, ClassifierNet]


def mixture(shift: float = 0.0) -> GaussianMixture:
    """Two classes of one Gaussian each, the boundary between them at `shift`."""
    means = torch.tensor([[-MEAN], [MEAN]], dtype=torch.float64) + shift
    return GaussianMixture(means, STD, labels=torch.arange(2))


def trained_parts(report: Report, size: Size) -> Parts:
    """Train the denoiser and both classifiers; the exact ones stand next to them.

    They are trained in float32 on the report's device; trajectories are computed in float64 on the
    CPU, so that rounding is no part of any comparison.
    """
    exact = mixture()
    generator = report.generator(1)
    points = torch.cat([exact.sample(size.points, y, generator) for y in (0, 1)])
    labels = torch.arange(2).repeat_interleave(size.points)
    task = ToyTask(
        points, labels, SCHEDULE, num_classes=2, label_dropout=1 / 3, name="denoiser", **NET
    )
    denoiser = toy_denoiser(train_toy(task, report, steps=size.training).cpu().double(), task)
    classifiers: dict[str, ClassifierNet] = {"exact": ExactClassifier(exact, SCHEDULE)}
    for kind, lr in (("mlp", 1e-3), ("linear", 1e-2)):
        net = NET if kind == "mlp" else {}
        guide = ToyClassifierTask(points, labels, SCHEDULE, kind, name=kind, **net)
        classifiers[kind] = train_toy(guide, report, steps=size.training // 2, lr=lr).cpu().double()
    return Parts({"exact": exact.denoiser(schedule=SCHEDULE), "learned": denoiser}, classifiers)


def exact_slope(t: float) -> float:
    """d/dx of log p(1|x_t)/p(0|x_t) = 2 alpha m x/(alpha^2 s^2 + sigma^2)."""
    alpha, sigma = SCHEDULE(t)
    return 2 * alpha * MEAN / ((alpha * STD) ** 2 + sigma**2)


def slopes(net: ClassifierNet, x: Tensor, t: float) -> Tensor:
    """d/dx of the logit of class 1 against class 0 at points (B, 1), (B,)."""

    return _gradient(net, x, t, (-1.0, 1.0))


def rectifier(parts: Parts, kind: str, t: float) -> float:
    """K of the conditional model that a classifier makes of the exact unconditional one.

    K = alpha d denoised / d x_t, averaged over x_t of class 1.
    """
    model = bayes_denoiser(parts.denoisers["exact"], parts.classifiers[kind])
    x = _noised(1, t)[0].requires_grad_(True)
    denoised = model(x, t, torch.ones(len(x), dtype=torch.long))
    (k,) = torch.autograd.grad(denoised.sum(), x)
    return float(SCHEDULE(t)[0] * k.mean())


def classifier_errors(net: ClassifierNet) -> dict[str, float]:
    """How far a classifier is from the exact one, each averaged over the times.

    slope_rms: of the logit's slope at the boundary x_t = 0, per unit of x.
    guidance: the term that guidance adds to epsilon (Eq. 9), sqrt(1 - abar) grad log p(y|x_t):
        rms error over x_t of the class, over the rms of the exact term.
    agreement: share of x_t (either class) that both classifiers give to the same class.
    """
    exact = ExactClassifier(mixture(), SCHEDULE)
    slope, error, size, agree = [], 0.0, 0.0, 0.0
    for t in LEVELS:
        boundary = torch.zeros(1, 1, dtype=torch.float64)
        slope.append(float(slopes(net, boundary, t)[0]) - exact_slope(t))
        for y in (0, 1):
            x, sigma = _noised(y, t)
            own, right = (_gradient(part, x, t, (1.0 - y, y)) for part in (net, exact))
            error += float((sigma * (own - right)).square().mean())
            size += float((sigma * right).square().mean())
            with torch.no_grad():
                times = torch.full((len(x),), float(t), dtype=torch.float64)
                votes = [part(x, times).argmax(-1) for part in (net, exact)]
            agree += float((votes[0] == votes[1]).double().mean())
    return {
        "slope_rms": math.sqrt(sum(value**2 for value in slope) / len(slope)),
        "guidance": math.sqrt(error / size),
        "agreement": agree / (2 * len(LEVELS)),
    }


def denoiser_error(denoiser: Denoiser) -> dict[str, float]:
    """rms of a denoiser's epsilon error over x_t and the times: conditional, and unconditional."""
    exact, found = mixture(), {}
    for name, labels in (("conditional", (0, 1)), ("unconditional", (2,))):
        total = 0.0
        for t in LEVELS:
            alpha, sigma = SCHEDULE(t)
            for label in labels:
                x = torch.cat([_noised(y, t)[0] for y in ((0, 1) if label == 2 else (label,))])
                with torch.no_grad():
                    own = denoiser(x, t, torch.full((len(x),), label))
                right = exact.denoised(x, alpha, sigma, label)
                total += float((alpha / sigma * (own - right)).square().mean())
        found[name] = math.sqrt(total / (len(LEVELS) * len(labels)))
    return found


def _noised(y: int, t: float, count: int = 256) -> tuple[Tensor, float]:
    """Quantiles of p(x_t|y), (count, 1), and sigma_t."""
    alpha, sigma = SCHEDULE(t)
    spread = math.hypot(alpha * STD, sigma)
    return (2 * y - 1) * alpha * MEAN + spread * quantiles(count), sigma


def _gradient(net: ClassifierNet, x: Tensor, t: float, weights: tuple[float, float]) -> Tensor:
    """d/dx of the weighted sum of log p(0|x_t) and log p(1|x_t), at points (B, 1), (B,)."""
    own = x.detach().requires_grad_(True)
    times = torch.full((len(x),), float(t), dtype=torch.float64)
    log_p = net(own, times).log_softmax(-1)
    (found,) = torch.autograd.grad((log_p * torch.tensor(weights).to(log_p)).sum(), own)
    return found[:, 0]
