"""One network evaluation of the loop: the state, where it stands, and how to ask the networks
there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .conditioning import Cond, concat
from .denoisers import Denoiser
from .noise import SampleNoise
from .solvers import Row

if TYPE_CHECKING:
    from .references import Reference

__all__ = ["Counter", "Point"]


@dataclass
class Counter:
    """Work done, in rows of a batch: forward evaluations and backward passes."""

    forward: int = 0
    backward: int = 0


@dataclass
class Point:
    """What guidance and rectifiers may look at and ask for at one row of the table.

    Args:
        x: the state x_t, (B, *sample_shape), unscaled.
        row, index: the table's row and its number.
        denoiser, reference: the networks.
        cond: conditioning of the B samples.
        memory: kept from row to row of one batch (the previous delta, momentum); owned by its
            writers.
        counter: work is added here.
        probes: random probes, one generator a sample (`diagonal`).
    """

    x: Tensor
    row: Row
    index: int
    denoiser: Denoiser
    reference: Reference
    cond: Cond
    memory: dict[str, Any]
    counter: Counter = field(default_factory=Counter)
    probes: SampleNoise | None = None

    @property
    def alpha(self) -> float:
        """alpha_t."""
        return self.row.alpha

    @property
    def sigma(self) -> float:
        """sigma_t."""
        return self.row.sigma

    def evaluate(self, denoiser: Denoiser, x: Tensor, cond: Cond, cost: int = 1) -> Tensor:
        """`denoiser` at this row's time; `cost` evaluations a sample are counted."""
        self.counter.forward += cost * x.shape[0]
        return denoiser(x, self.row.t, cond)

    def cond_at(self, x: Tensor, cost: int = 1) -> Tensor:
        """The conditional denoised at state x (B, *sample_shape)."""
        return self.evaluate(self.denoiser, x, self.cond, cost)

    def ref(self, cond: Tensor) -> Tensor:
        """The reference's denoised at x_t; `cond` is the conditional one (a classifier needs
        it)."""
        return self.reference.denoised(self, cond)

    def stack(self, *states: Tensor) -> tuple[Tensor, ...]:
        """[ref(x_t); cond(x) for x in states], in one batch where the reference is the same
        network."""
        null = self.reference.null(self)
        if null is None:
            conds = self.evaluate(
                self.denoiser, torch.cat(states), concat([self.cond] * len(states))
            ).chunk(len(states))
            return (self.ref(conds[0]), *conds)
        rows = concat([null, *[self.cond] * len(states)])
        out = self.evaluate(self.denoiser, torch.cat([self.x, *states]), rows)
        return out.chunk(len(states) + 1)

    def to_prediction(self, denoised: Tensor) -> Tensor:
        """`denoised` in the network's own prediction at x_t."""
        return self.denoiser.to_prediction(denoised, self.x, self.row.t)

    def delta_from_prediction(self, delta: Tensor) -> Tensor:
        """A difference of predictions, as a difference of denoised."""
        return self.denoiser.coefficients(self.row.t)[2] * delta

    def delta_to_prediction(self, delta: Tensor) -> Tensor:
        """A difference of denoised, as a difference of predictions."""
        return delta / self.denoiser.coefficients(self.row.t)[2]

    def from_prediction(self, prediction: Tensor) -> Tensor:
        """A network's own prediction at x_t, as denoised."""
        _, c_skip, c_out = self.denoiser.coefficients(self.row.t)
        return c_skip * self.x + c_out * prediction
