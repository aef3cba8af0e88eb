"""What guidance moves away from: the unconditional model, a worse model, or (by Bayes) a
classifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from .conditioning import Cond, expand
from .denoisers import Denoiser
from .errors import EstimatorError, InputError
from .frozen import recording
from .point import Point
from .values import as_bool, shown, store

__all__ = ["BadModel", "Classifier", "Reference", "Unconditional"]


class Reference(Protocol):
    """A reference gives `denoised` at a point; `modules` are frozen during a call.

    One that never looks at `cond` says `needs_cond = False`: at scale 0 cond is then left out.
    """

    @property
    def modules(self) -> tuple[nn.Module, ...]: ...

    def null(self, point: Point) -> Cond | None:
        """The reference's conditioning, if it is the guided network itself (one batch serves
        both)."""
        ...

    def denoised(self, point: Point, cond: Tensor) -> Tensor:
        """The reference's denoised at the point, (B, *sample_shape)."""
        ...


@dataclass(frozen=True)
class Unconditional:
    """Classifier-free guidance (Ho & Salimans 2022): the same network with the null conditioning.

    Args:
        null_cond: overrides the denoiser's own (a negative prompt's embedding, say).
    """

    null_cond: object = None
    needs_cond = False

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        return ()

    def null(self, point: Point) -> Cond | None:
        own = point.denoiser.null_cond if self.null_cond is None else self.null_cond
        return expand(own, point.cond)

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
        cond: conditioning for the worse model; None = that of the guided one.
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

    def null(self, point: Point) -> Cond | None:
        return None

    def denoised(self, point: Point, cond: Tensor) -> Tensor:
        conditioning = point.cond if self.cond is None else expand(self.cond, point.cond)
        denoiser = self.net.on(point.denoiser.schedule)
        return point.evaluate(denoiser, point.x, conditioning)


@dataclass(frozen=True)
class Classifier:
    """Classifier guidance (Dhariwal & Nichol 2021): grad log p(c | x_t) of a noise-aware
    classifier.

    By Bayes the reference that belongs to it is cond - (sigma_t^2 / alpha_t) grad log p(c | x_t),
    so
    `delta` is the classifier's term and everything else (weights, rectifiers) applies unchanged.

    Args:
        net: called as net(x, t) with x (B, *sample_shape) and t (B,) in the schedule's time;
            returns logits or log-probabilities (B, classes). Must be differentiable in x.
        labels: class to steer to, an int or LongTensor (B,); None = the conditioning itself.
        on_clean_scale: the classifier was trained on x_t / alpha_t and sigma_t / alpha_t.
    """

    net: Callable[[Tensor, Tensor], Tensor]
    labels: int | None = None
    on_clean_scale: bool = False

    def __post_init__(self) -> None:
        if not callable(self.net) or isinstance(self.net, type):
            raise InputError("net", f"is {shown(self.net)}", "Give a function net(x, t)")
        store(self, on_clean_scale=as_bool("on_clean_scale", self.on_clean_scale))

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        return (self.net,) if isinstance(self.net, nn.Module) else ()

    def null(self, point: Point) -> Cond | None:
        return None

    def denoised(self, point: Point, cond: Tensor) -> Tensor:
        if point.alpha == 0:
            raise InputError(
                "reference",
                f"a classifier says nothing at t = {point.row.t:g}, where alpha = 0",
                "Start at an earlier time: solver_options={'times': [...]}",
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
            labels = self._labels(point)
            scale, time = (
                (1 / point.alpha, point.sigma / point.alpha)
                if self.on_clean_scale
                else (1.0, point.row.t)
            )
            dtype = _dtype(self.net) or x.dtype  # the network's at the call only
            t = torch.full((x.shape[0],), float(time), dtype=dtype, device=x.device)
            logits = self.net((scale * x).to(dtype), t)
            if logits.dim() != 2 or logits.shape[0] != x.shape[0]:
                raise InputError(
                    "net",
                    f"the classifier returned {tuple(logits.shape)}",
                    "It must return logits (B, classes)",
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

    def _labels(self, point: Point) -> Tensor:
        if self.labels is not None:
            return torch.full((point.x.shape[0],), int(self.labels), device=point.x.device)
        if isinstance(point.cond, dict) or point.cond.dim() != 1 or point.cond.is_floating_point():
            raise InputError(
                "labels",
                "the conditioning is not a class label",
                "Give Classifier(net, labels=...)",
            )
        return point.cond.clone()


def _dtype(net: Callable[..., Tensor]) -> torch.dtype | None:
    """Floating dtype of a module's parameters; None if it has none."""
    found = net.parameters() if isinstance(net, nn.Module) else ()
    return next((value.dtype for value in found if value.is_floating_point()), None)
