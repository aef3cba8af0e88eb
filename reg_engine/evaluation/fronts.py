"""Fronts of FID against confidence over scales, and differences at equal confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["Difference", "Front", "Measured", "Setting", "difference", "half_width"]

Z = 1.959963984540054  # half-widths are Z deviations of the bootstrap: 95 % of a normal law
ROUNDING = 1e-9  # of a difference of FIDs


def half_width(values: Tensor) -> float:
    """Half-width of the 95 % interval of (1 + R,) values: the first is no resample."""
    return Z * float(values[1:].std())


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


def difference(one: Tensor, other: Tensor) -> Difference:
    """The difference of two (1 + R,) values, resample by resample."""
    return Difference(float((one - other)[0]), half_width(one - other))


class Setting(Protocol):
    """What was sampled: how it is named in the numbers."""

    @property
    def row(self) -> Mapping[str, Any]:
        """The first entries of its numbers: method, scale, ..."""


@dataclass(frozen=True)
class Measured:
    """A point's numbers, and their bootstrap."""

    point: Any  # a Setting
    row: dict[str, Any]  # for JSON; confidence is the mean log-odds of the wanted label
    fids: Tensor  # (1 + R,) FID, and that of every resample; empty without real images
    confidences: Tensor  # (1 + R,) likewise


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

    def fid_at(self, level: float | Tensor) -> Tensor | None:
        """The lowest FID that the front offers at a confidence of `level` or more, (1 + R,).

        A `level` (1 + R,) has one for every resample, such as another method's own confidence.

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
