"""What guidance moves away from: the unconditional model, a worse model, or (by Bayes) a
classifier."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import EstimatorError, InputError
from ..networks.conditioning import Cond, as_cond, expand, integral
from ..networks.denoisers import Denoiser
from ..networks.frozen import recording
from ..networks.modules import ask, dtype_of, modules_of, search
from ..networks.point import Point
from ..values import as_bool, as_float, shown, store

__all__ = ["BadModel", "Classifier", "Unconditional"]


class GuidedNetwork:
    """What references share that are the guided network itself, asked otherwise."""

    needs_cond = False

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        return ()


@dataclass(frozen=True)
class Unconditional(GuidedNetwork):
    """Classifier-free guidance (Ho & Salimans 2022): the same network with the null conditioning.

    Args:
        null_cond: overrides the denoiser's own (a negative prompt's embedding, say): a scalar, one
            row, or one row a sample.
    """

    null_cond: object = None

    def conditioning(
        self, denoiser: Denoiser, cond: Cond, count: int, device: torch.device
    ) -> Cond:
        null = denoiser.null_cond if self.null_cond is None else self.null_cond
        if denoiser.num_classes is not None and isinstance(null, int) and null < 0:
            raise InputError("null_cond", f"is {null}", "Give the network's null label, >= 0")
        return expand(null, cond)

    def null(self, point: Point) -> Cond | None:
        return point.reference_cond()

    def denoised(self, point: Point, cond: Tensor) -> Tensor:
        null = point.null()
        assert null is not None
        return point.evaluate(point.denoiser, point.x, null)


@dataclass(frozen=True)
class BadModel:
    """Autoguidance (Karras et al. 2024, arXiv 2406.02507): a worse model with the same
    conditioning.

    Args:
        net: a Denoiser; its schedule may differ, x_t is rescaled to the same noise level.
        cond: conditioning for the worse model, as `sample` takes it (one for all, or one row a
            sample); None = that of the guided one.
    """

    net: Denoiser
    cond: object = None
    needs_cond = False

    def __post_init__(self) -> None:
        if not isinstance(self.net, Denoiser):
            raise InputError(
                "net", f"is a {type(self.net).__name__}", "Wrap the worse network in a Denoiser"
            )

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        return self.net.modules

    def conditioning(
        self, denoiser: Denoiser, cond: Cond, count: int, device: torch.device
    ) -> Cond:
        if self.cond is None:
            return cond
        return as_cond(self.cond, count, self.net.num_classes, self.net.null_cond, device)

    def null(self, point: Point) -> Cond | None:
        return None

    def denoised(self, point: Point, cond: Tensor) -> Tensor:
        denoiser = self.net.on(point.denoiser.schedule)
        return point.evaluate(denoiser, point.x, point.reference_cond())


@dataclass(frozen=True)
class Classifier:
    """Classifier guidance (Dhariwal & Nichol 2021): grad log p(c | x_t) of a noise-aware
    classifier.

    By Bayes the reference that belongs to it is cond - (sigma_t^2 / alpha_t) grad log p(c | x_t),
    so `delta` is the classifier's term and everything else (weights, rectifiers) applies unchanged.

    The term comes times w = scale - 1. Beside an unconditional network (cond=None, or its null
    label) scale 1 is that network alone, and scale 2 (w = 1) samples p(x | c) as Bayes has it.
    Beside a conditional one scale 1 samples p(x | c), and more sharpens it.

    Args:
        net: called as net(x, t) with x (B, *sample_shape) and t (B,) in the schedule's time;
            returns logits or log-probabilities (B, classes). Must be differentiable in x. Torch
            modules are found in a function as in a Denoiser's; what it hides, an attribute can
            name: `net.modules = [...]`.
        labels: class to steer to, an int or integers (N,), one a sample; None = the conditioning
            itself.
        on_clean_scale: the classifier was trained on x_t / alpha_t and sigma_t / alpha_t.
        start: largest noise level sigma/alpha, > 0, at which the classifier is asked; above it
            there is no guidance. Flow schedules begin at an infinite one, where no classifier can
            tell classes apart: give a number, such as 80.
    """

    net: Callable[[Tensor, Tensor], Tensor]
    labels: Any = None
    on_clean_scale: bool = False
    start: float = math.inf

    def __post_init__(self) -> None:
        if not callable(self.net) or isinstance(self.net, type):
            raise InputError("net", f"is {shown(self.net)}", "Give a function net(x, t)")
        store(self, on_clean_scale=as_bool("on_clean_scale", self.on_clean_scale))
        remedy = "Give a noise level sigma/alpha > 0"
        store(self, start=as_float("start", self.start, remedy, lambda v: v > 0))

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        return modules_of(self.net)

    def conditioning(
        self, denoiser: Denoiser, cond: Cond, count: int, device: torch.device
    ) -> Cond:
        if self.labels is not None:
            cond = as_cond(self.labels, count, None, None, device, "labels")
        if not isinstance(cond, Tensor) or cond.dim() != 1 or not integral(cond):
            raise InputError(
                "labels",
                "the conditioning is not a class label" if self.labels is None else "are no labels",
                "Give Classifier(net, labels=...): an int, or integers (N,)",
            )
        return cond.long()

    def null(self, point: Point) -> Cond | None:
        return None

    def denoised(self, point: Point, cond: Tensor) -> Tensor:
        if point.row.noise_level > self.start:
            return cond
        if point.alpha == 0:
            raise InputError(
                "reference",
                f"a classifier says nothing at t = {point.row.t:g}, where alpha = 0",
                "Give Classifier(start=80), weight=Interval(scale, 0, 80), or earlier times: "
                "solver_options={'times': [...]}",
            )
        return cond - point.sigma**2 / point.alpha * self.gradient(point)

    def gradient(self, point: Point) -> Tensor:
        """grad_{x_t} log p(labels | x_t), (B, *sample_shape).

        Raises:
            InputError: the net returned something else than (B, classes), or a label is not a
                class.
            EstimatorError: the net is not differentiable in x.
        """
        point.counter.forward += point.x.shape[0]
        point.counter.backward += point.x.shape[0]
        with recording(point.x) as x:
            labels = point.reference_cond()
            assert isinstance(labels, Tensor)
            scale, time = (
                (1 / point.alpha, point.sigma / point.alpha)
                if self.on_clean_scale
                else (1.0, point.row.t)
            )
            dtype = dtype_of(search(self.net)) or x.dtype  # the network's at the call only
            t = torch.full((x.shape[0],), float(time), dtype=dtype, device=x.device)
            logits: object = ask(self.net, search(self.net), (scale * x).to(dtype), t)
            if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(x):
                got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
                raise InputError(
                    "net", f"the classifier returned {got}", "It must return logits (B, classes)"
                )
            if not logits.requires_grad:
                raise EstimatorError("the classifier cuts the autograd graph: it cannot guide")
            if int(labels.max()) >= logits.shape[1] or int(labels.min()) < 0:
                raise InputError(
                    "labels",
                    f"the classifier knows {logits.shape[1]} classes",
                    "Give Classifier(labels=...) or conditions that are its classes",
                )
            chosen = logits.log_softmax(-1).gather(1, labels[:, None])
            (gradient,) = torch.autograd.grad(chosen.sum(), x)
        return gradient
