"""What every row of a call reads: networks, guidance and a solver's table, and the estimator, which
is settled before the first row."""

from __future__ import annotations

import math
from copy import copy
from threading import RLock
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..guidance.adjustments import Clip
from ..guidance.directions import Delta
from ..guidance.guidance import Guidance
from ..networks.conditioning import Cond, take
from ..networks.denoisers import Denoiser
from ..networks.point import Point
from ..plan import Plan
from ..profiling import ranges
from ..rectifiers import Rectifier, name_of
from ..rectifiers.auto import settled
from ..rectifiers.precision import autocast_dtype
from ..solvers import Table
from .stats import Stats

__all__ = ["Choices", "Conds"]

Conds = tuple[Cond, Cond]  # of the network, and of the reference where it has its own
_T = TypeVar("_T", bound="Choices")


class Choices:
    """A denoiser, a guidance and a solver's table, resolved: everything that a row reads.

    Args:
        denoiser: on the schedule that is sampled in.
        guidance, plan, table: what every row does.
        weights: w of every row.
        coefficients: the rows' numbers on the device (ops/coefficients.py).
        dtype, backend: of the state; of the guidance step.
        batch_size, memory_budget: what `auto` sizes an estimator's memory by.
        check: whether derivatives are compared with differences first.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        guidance: Guidance,
        plan: Plan,
        table: Table,
        weights: tuple[float, ...],
        coefficients: Tensor,
        dtype: torch.dtype,
        backend: str,
        batch_size: int | None,
        memory_budget: float | None,
        check: bool,
    ) -> None:
        self.denoiser, self.guidance, self.plan = denoiser, guidance, plan
        self.device, self.dtype, self.backend = coefficients.device, dtype, backend
        self.batch_size, self.memory_budget, self.check = batch_size, memory_budget, check
        self.tried = 1  # samples that an estimator is tried on; 0 = a whole batch
        self.looks = self.device.type == "cpu"  # elsewhere a look waits for the device
        self._settled: dict[torch.dtype | None, tuple[Rectifier, str]] = {}  # by autocast
        self._settling = RLock()
        self._follow(table, weights, coefficients)

    def _follow(self, table: Table, weights: tuple[float, ...], coefficients: Tensor) -> None:
        self.table, self.weights, self.coefficients = table, weights, coefficients
        self.clip = Clip(table.clip, table.keep_epsilon) if table.clip is not None else None
        self.modes = self._modes()
        guidance = self.guidance
        rectify = guidance.rectify if "reg" in self.modes else None
        self._unsettled = (
            None if isinstance(rectify, str) else rectify,
            "no evaluation is rectified" if rectify is None else "not settled yet",
        )

    def on(
        self: _T, plan: Plan, table: Table, weights: tuple[float, ...], coefficients: Tensor
    ) -> _T:
        """The same choices on other rows; the estimator is settled once for all."""
        other = copy(self)
        other.plan = plan
        other._follow(table, weights, coefficients)
        return other

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """Every network that a row may run: frozen during a batch."""
        return (*self.denoiser.modules, *self.guidance.reference.modules)

    def _modes(self) -> tuple[str, ...]:
        """The plan's modes; w = 0 needs no reference, no rectifier makes `reg` a `cfg`.

        w = -1 (scale 0) is the reference alone: nothing is rectified there, and where neither
        direction nor adjustment looks at cond, the reference alone is evaluated.
        """
        guidance = self.guidance
        alone = "cfg" if guidance.adjust or not isinstance(guidance.direction, Delta) else "ref"

        def mode_of(planned: str, w: float) -> str:
            if w == 0 or planned == "cond":
                return "cond"
            if w == -1:
                return alone
            return "cfg" if guidance.rectify is None else planned

        planned = self.plan.modes_for(self.table)
        return tuple(mode_of(mode, w) for mode, w in zip(planned, self.weights, strict=True))

    def prepare(self, conds: Conds, count: int, stats: Stats) -> None:
        """Settle the estimator before the first row, where the host may still look: `auto` is
        decided, a derivative checked. Once, and once more under autocast.

        Args:
            conds, count: conditionings of a batch, and its samples.
        """
        rectify, context = self.guidance.rectify, autocast_dtype(self.device)
        with self._settling:
            if "reg" not in self.modes or rectify is None or context in self._settled:
                return
            point, size = self._trial(conds, self.tried or count), self.batch_size or count
            with ranges.check():
                self._settled[context] = settled(
                    rectify, point, size, self.memory_budget, self.check
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
        )

    @property
    def _estimator(self) -> tuple[Rectifier | None, str]:
        return self._settled.get(autocast_dtype(self.device), self._unsettled)

    @property
    def chosen(self) -> tuple[str, str]:
        """The estimator's name, and why it was taken."""
        rectifier, reason = self._estimator
        return "none" if rectifier is None else name_of(rectifier), reason
