"""Guidance methods that are compared, each over its scales."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from ..calibration.damping import Damping
from ..guidance.guidance import Guidance
from ..guidance.weights import Constant, Interval, Weight
from ..networks.adapter import Adapter
from ..plan import Plan
from ..solvers import Gibbs

__all__ = ["Method", "MethodPoint"]


@dataclass(frozen=True)
class Method:
    """What guides at every scale.

    Args:
        name: what it is called in tables and pictures.
        scales: guidance scales >= 0; 1 = none.
        rectify: an estimator's name; None = no REG.
        interval: noise levels (lo, hi) outside of which nothing guides; None = everywhere.
        damping: in place of an estimator; its weight at the scale.
        skip_below: of the damping, see Damped.
        plan: where the estimator works.
        refine: Gibbs rounds after each sample, guided likewise; None = none.
        adapter: that holds the guidance, in place of an estimator.
    """

    name: str
    scales: tuple[float, ...]
    rectify: str | None = None
    interval: tuple[float, float] | None = None
    damping: Damping | None = None
    skip_below: float = 0.0
    plan: Plan = Plan.full()
    refine: Gibbs | None = None
    adapter: Adapter | None = field(default=None, hash=False)

    @property
    def plain(self) -> bool:
        """Whether it is CFG and nothing else: the method that all are compared with."""
        changed = (self.rectify, self.interval, self.damping, self.refine, self.adapter)
        return all(part is None for part in changed)

    @property
    def file(self) -> str:
        """A file name of its own."""
        own = "none" if self.plain else self.rectify
        short = own if self.name in ("CFG", f"REG ({own})") else self.name
        return re.sub(r"[^\w.-]+", "-", str(short))

    def guidance(self, scale: float) -> Guidance:
        """Its guidance at a scale; at 1, where no method guides, that of CFG.

        Raises:
            InputError: an unknown estimator; a scale that the damping was not calibrated for, or
                the adapter was not trained for.
        """
        if self.adapter is not None:
            self.adapter.holding(scale)
            return Guidance(1.0, rectify=None)
        weight: Weight = Constant(scale)
        if scale != 1 and self.damping is not None:
            weight = self.damping(scale, skip_below=self.skip_below)
        elif scale != 1 and self.interval is not None:
            weight = Interval(scale, *self.interval)
        return Guidance(weight, rectify=self.rectify if scale != 1 else None)


@dataclass(frozen=True)
class MethodPoint:
    """A method at a scale."""

    method: Method
    scale: float

    @property
    def row(self) -> dict[str, Any]:
        """How it is named in the numbers."""
        return {"method": self.method.name, "scale": self.scale}

    @property
    def file(self) -> str:
        """A file name of its own, but at scale 1: that is the same point for all methods."""
        return f"{'none' if self.scale == 1 else self.method.file}-{self.scale!r}"
