"""Where the loop stands at one row of its table: the state, the row's numbers, and what estimates
and predictions are of each other there."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..noise import Draws
from ..ops.coefficients import COLUMNS
from ..solvers import Row
from .conditioning import Cond
from .counter import Counter
from .denoisers import Denoiser, Number, Place
from .variance import Heard

__all__ = ["Standing"]


@dataclass
class Standing:
    """What guidance and rectifiers may look at at one row of the table.

    Args:
        x: the state x_t, (B, *sample_shape), unscaled.
        row, index: the table's row and its number.
        denoiser, reference: the networks.
        cond: conditioning of the B samples.
        beside: the reference's own, where it has one; None = made of `cond` when it is asked for.
        memory: kept from row to row of one batch (the previous delta, momentum); owned by its
            writers.
        counter: work is added here.
        probes: random probes, one generator a sample (`diagonal`).
        table, step: the coefficients on the device, and where the row is in them (ops.guided_step).
        landing: of the same rows, coefficients that land on the network's estimate itself.
        weights: w of each of several terms (guidance/terms.py); None = not guided at this row.
        own_w: w of the one of them that looks at the point.
        heard: what the network says of cond at x_t beside its prediction (a learned variance).
        backend: of the ops, see ops/door.py.
        missed: set on the device where a branch that a rectifier asks for (`any`) should have been
            taken and the host did not look; None = it looks.
    """

    x: Tensor
    row: Row
    index: int
    denoiser: Denoiser
    reference: Any  # a Reference: see Point
    cond: Cond
    memory: MutableMapping[str, Tensor]
    counter: Counter = field(default_factory=Counter)
    probes: Draws | None = None
    table: Tensor | None = None
    step: Tensor | None = None
    backend: str | None = None
    missed: Tensor | None = None
    beside: Cond = None
    landing: Tensor | None = None
    weights: tuple[Number | None, ...] = ()
    own_w: Number | None = None
    heard: Heard = field(default_factory=Heard)

    @property
    def alpha(self) -> Number:
        """alpha_t."""
        return self.row.alpha

    @property
    def sigma(self) -> Number:
        """sigma_t."""
        return self.row.sigma

    @property
    def w(self) -> Tensor:
        """The row's w on the device, 0-dim, in the state's dtype; of several terms, one's own."""
        if self.own_w is not None:
            return torch.as_tensor(self.own_w, dtype=self.x.dtype, device=self.x.device)
        assert self.table is not None and self.step is not None
        return self.table.index_select(0, self.step.reshape(1))[0, COLUMNS.index("w")]

    @property
    def number(self) -> int | Tensor:
        """How many evaluations went before: on the host, or 0-dim where a graph is captured."""
        index: object = self.index
        if isinstance(index, int):
            return index
        assert self.step is not None
        return self.step.reshape(())

    def place(self, denoiser: Denoiser) -> Place:
        """How `denoiser` is asked at this row."""
        return denoiser.at(self.row.t)

    def any(self, found: Tensor) -> bool:
        """Whether a bool tensor of the device holds True: what a rectifier's branch may ask.

        Where looking would wait for the device the answer is False, and `missed` keeps the right
        one.
        """
        if self.missed is None:
            return bool(found.any())
        self.missed.logical_or_(found.any())
        return False

    def to_prediction(self, denoised: Tensor) -> Tensor:
        """`denoised` in the network's own prediction at x_t."""
        place = self.place(self.denoiser)
        return (denoised - place.c_skip * self.x) / place.c_out

    def from_prediction(self, prediction: Tensor) -> Tensor:
        """A network's own prediction at x_t, as denoised."""
        place = self.place(self.denoiser)
        return place.c_skip * self.x + place.c_out * prediction

    def delta_to_prediction(self, delta: Tensor) -> Tensor:
        """A difference of denoised, as a difference of predictions."""
        return delta / self.place(self.denoiser).c_out

    def delta_from_prediction(self, delta: Tensor) -> Tensor:
        """A difference of predictions, as a difference of denoised."""
        return self.place(self.denoiser).c_out * delta
