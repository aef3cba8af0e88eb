"""What every row of a call reads: its numbers and its mode, and the estimator, which is settled
before the first row."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import replace
from functools import partial
from threading import RLock
from typing import Any, TypeVar

import torch
from torch import nn

from ..guidance.adjustments import clips_of
from ..guidance.directions import Delta
from ..guidance.estimate import fuses
from ..guidance.terms import WeightedDirections
from ..guidance.weights import looks_at_samples
from ..networks.conditioning import Cond, take
from ..networks.point import Point
from ..ops.coefficients import Coefficients, coefficient_table
from ..profiling import ranges
from ..rectifiers import Rectifier, name_of
from ..rectifiers.auto import settled
from ..rectifiers.precision import autocast_dtype
from .choices import Choices
from .stats import Stats

__all__ = ["Conds", "Rows"]

Conds = tuple[Cond, Cond]  # of the network, and of the reference where it has its own
_T = TypeVar("_T", bound="Rows")


class Rows:
    """The rows of a call's table, and the estimator that serves them."""

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.denoiser, self.guidance = choices.denoiser, choices.guidance
        self.device, self.dtype, self.backend = choices.device, choices.dtype, choices.backend
        self.batch_size = choices.batch_size
        self.tried = 1  # samples that an estimator is tried on; 0 = a whole batch
        self.looks = self.device.type == "cpu"  # elsewhere a look waits for the device
        self._settled: dict[torch.dtype | None, tuple[Rectifier, str]] = {}  # by autocast
        self._settling = RLock()
        self._follow()

    def _follow(self) -> None:
        choices = self.choices
        self.table, self.weights = choices.table, choices.weights
        self.clips, self.adjust = clips_of(self.guidance.adjust, self.table, self.weights)
        self.modes = self._modes()
        self.coefficients = self._coefficients()
        rectify = self.guidance.rectify if "reg" in self.modes else None
        self._unsettled = (
            None if isinstance(rectify, str) else rectify,
            (self.denoiser.holds or "no evaluation is rectified")
            if rectify is None
            else "not settled yet",
        )

    def _coefficients(self) -> Coefficients:
        rows, weights, clips = self.table.rows, self.weights, self.clips
        places: Any = [self.denoiser.at(row.t) for row in rows]
        estimates: Any = [(place.c_in, 0.0, 1.0, place.time) for place in places]
        own: Any = [(place.c_in, place.c_skip, place.c_out, place.time) for place in places]
        landings = [replace(row, p=0.0, q=1.0, a=0.0, c=0.0, b=(1.0,)) for row in rows]
        made = partial(coefficient_table, device=self.device, dtype=self.dtype)
        return Coefficients(
            made(rows, weights, predictions=estimates, clips=clips),
            made(rows, weights, predictions=own, clips=clips),
            made(landings, weights, predictions=own),
            torch.tensor([row.spread for row in rows], dtype=self.dtype, device=self.device),
        )

    def on(self: _T, **rows: Any) -> _T:
        """The same choices on other rows (plan, table, weights, term_weights); the estimator is
        settled once for all."""
        other = copy(self)
        other.choices = replace(self.choices, **rows)
        other._follow()
        return other

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """Every network that a row may run: frozen during a batch."""
        return self.choices.modules

    def _modes(self) -> tuple[str, ...]:
        """The plan's modes; w = 0 needs no reference, no rectifier makes `reg` a `cfg`.

        w = -1 (scale 0) is the reference alone: nothing is rectified there, and where neither
        direction, adjustment nor weight looks at cond, the reference alone is evaluated.
        """
        guidance = self.guidance
        each = looks_at_samples(guidance.weight)
        looks = self.adjust or not isinstance(guidance.direction, Delta)
        alone = "cfg" if looks or self.table.learned else "ref"

        def mode_of(index: int, planned: str, w: float) -> str:
            if w == 0 or planned == "cond":
                return "cond"
            if w == -1 and not each:
                return alone
            return planned if planned != "reg" or rectified(index) else "cfg"

        def rectified(index: int) -> bool:
            """Whether a term that is rectified has a weight at the row."""
            direction = guidance.direction
            if guidance.rectify is None or not isinstance(direction, WeightedDirections):
                return guidance.rectify is not None
            pairs = zip(direction.rectified, self.choices.term_weights[index], strict=True)
            return any(yes and w != 0 for yes, w in pairs)

        planned = self.choices.plan.modes_for(self.table)
        rows = enumerate(zip(planned, self.weights, strict=True))
        return tuple(mode_of(index, mode, w) for index, (mode, w) in rows)

    def terms_at(self, index: int) -> tuple[float | None, ...]:
        """w of several terms at a row, None for those that are not guided there."""
        weights = self.choices.term_weights
        return tuple(w or None for w in weights[index]) if weights else ()

    @property
    def fused(self) -> bool:
        """Whether a `cfg` row leaves the network's predictions to the fused step as they are."""
        rectifies = self.guidance.rectify is not None and "reg" in self.choices.plan.modes
        lagged = rectifies and getattr(self._estimator[0], "lagged", True)
        return fuses(self.guidance, self.adjust, lagged)

    def prepare(self, conds: Conds, count: int, stats: Stats) -> None:
        """Settle the estimator before the first row, where the host may still look: `auto` is
        decided, a derivative checked. Once, and once more under autocast.

        Args:
            conds, count: conditionings of a batch, and its samples.
        """
        choices = self.choices
        rectify, context = self.guidance.rectify, autocast_dtype(self.device)
        with self._settling:
            if "reg" not in self.modes or rectify is None or context in self._settled:
                return
            point, size = self._trial(conds, self.tried or count), self.batch_size or count
            with ranges.check():
                self._settled[context] = settled(
                    rectify, point, size, choices.memory_budget, choices.check, choices.static
                )
            stats.checks += point.counter.forward + point.counter.backward

    def _trial(self, conds: Conds, samples: int) -> Point:
        """A noisy point at the rectified row next to noise level 1, where K is neither 0 nor 1."""
        index = min(
            (index for index, mode in enumerate(self.modes) if mode == "reg"),
            key=lambda i: abs(math.log(min(max(self.table.rows[i].noise_level, 1e-9), 1e9))),
        )
        row, generator = self.table.rows[index], torch.Generator().manual_seed(0)
        unit = torch.randn((samples, *self.denoiser.sample_shape), generator=generator)
        cond, beside = take(conds, slice(0, samples))
        return Point(
            math.hypot(row.alpha, row.sigma) * unit.to(self.device, self.dtype),
            row,
            index,
            self.denoiser,
            self.guidance.reference,
            cond,
            {},
            backend=self.backend,
            beside=beside,
            weights=self.terms_at(index),
        )

    @property
    def _estimator(self) -> tuple[Rectifier | None, str]:
        return self._settled.get(autocast_dtype(self.device), self._unsettled)

    @property
    def chosen(self) -> tuple[str, str]:
        """The estimator's name, and why it was taken."""
        rectifier, reason = self._estimator
        return "none" if rectifier is None else name_of(rectifier), reason
