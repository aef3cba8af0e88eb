"""Fronts of FID against confidence, and comparisons at matched confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .grid import CLASSIFIER_METHODS
from .measures import Measured, Z

__all__ = ["Difference", "Front", "difference", "front_of"]

ROUNDING = 1e-9  # of a difference of FIDs


@dataclass(frozen=True)
class Difference:
    """One FID minus another, with the half-width of its 95 % interval (paired bootstrap)."""

    value: float
    error: float

    @property
    def below(self) -> bool:
        """Whether the first is lower beyond the error bar."""
        return self.value < -max(self.error, ROUNDING)

    @property
    def above(self) -> bool:
        """Whether the first is higher beyond the error bar."""
        return self.value > max(self.error, ROUNDING)

    @property
    def text(self) -> str:
        """value +- error."""
        return f"{self.value:+.3f} ± {self.error:.3f}"


class Front:
    """What one method reaches over its scales: FID against confidence (mean log-odds).

    Args:
        points: measured points of one method, in the order of their scales.
    """

    def __init__(self, points: Sequence[Measured]) -> None:
        self.points = list(points)
        self.fid = torch.stack([m.fids for m in self.points])
        self.confidence = torch.stack([m.confidences for m in self.points])

    def lowest(self) -> Tensor:
        """The lowest FID over scales, (1 + R,): the measurement, then its resamples."""
        return self.fid.min(0).values

    def best(self) -> Measured:
        """The point of the lowest FID."""
        return self.points[int(self.fid[:, 0].argmin())]

    def fid_at(self, level: float) -> Tensor | None:
        """The lowest FID that the front offers at a confidence of `level` or more, (1 + R,).

        Between neighbouring scales ln(FID) is a straight line: FID itself bends upwards, and a
        chord would lie above it. A resample that does not reach so far counts with its surest
        point. None: the measurement itself does not reach it.
        """
        far = self.confidence >= level
        if not bool(far[:, 0].any()):
            return None
        infinite = torch.full_like(self.fid, torch.inf)
        offers = [torch.where(far, self.fid, infinite)]
        a, b = self.confidence[:-1], self.confidence[1:]
        share = (level - a) / torch.where(b == a, torch.ones_like(a), b - a)
        crossing = (share > 0) & (share < 1) & (a != b)
        logs = self.fid.clamp(min=1e-12).log()
        between = (logs[:-1] + share * (logs[1:] - logs[:-1])).exp()
        offers.append(torch.where(crossing, between, infinite[1:]))
        found = torch.cat(offers).min(0).values
        surest = self.fid.gather(0, self.confidence.argmax(0)[None])[0]
        return torch.where(found.isfinite(), found, surest)


def difference(one: Tensor, other: Tensor) -> Difference:
    """The difference of two (1 + R,) values, resample by resample."""
    apart = one - other
    return Difference(float(apart[0]), Z * float(apart[1:].std()))


def front_of(measured: Sequence[Measured], method: str, rectified: bool) -> Front | None:
    """A method's front, without REG or with the cheap estimator; None if it has no two points.

    The unguided conditional model (scale 1) is the first point of every front but a classifier's.
    """
    own = [m for m in measured if m.point.method == method and m.point.plain]
    chosen = [m for m in own if m.point.rectified is rectified]
    if method not in CLASSIFIER_METHODS:
        scales = {m.point.scale for m in chosen}
        chosen += [m for m in measured if _unguided(m) and 1 not in scales]
    chosen.sort(key=lambda m: m.point.scale)
    return Front(chosen) if len(chosen) > 1 else None


def _unguided(measured: Measured) -> bool:
    return measured.point.method == "vanilla" and measured.point.scale == 1
