"""Fronts of FID against confidence over scales, and differences at equal confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from ..fidelity import half_width

__all__ = ["Difference", "Front", "Measured", "Setting", "difference"]

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
    agreements: Tensor | None = None  # (1 + R,) likewise


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

        Between neighbouring scales ln(FID) is a straight line: FID itself bends upwards, and a
        chord would lie above it. A resample that does not reach so far counts with its surest
        point. A `level` (1 + R,) has one for every resample, such as another method's own
        confidence. None: the measurement itself does not reach it.
        """
        offers, _ = self._offers(level)
        if not bool(offers[:, 0].isfinite().any()):
            return None
        found = offers.min(0).values
        surest = self.fid.gather(0, self.confidence.argmax(0)[None])[0]
        return torch.where(found.isfinite(), found, surest)

    def read_at(self, level: float, key: str) -> float | None:
        """A number of the rows, such as the scale, where the measurement itself has fid_at(level):
        between two scales on a straight line."""
        offers, shares = self._offers(level)
        place = int(offers[:, 0].argmin())
        if not bool(offers[place, 0].isfinite()):
            return None
        values = [float(m.row[key]) for m in self.points]
        if place < len(values):
            return values[place]
        low, share = place - len(values), float(shares[place - len(values), 0])
        return values[low] + share * (values[low + 1] - values[low])

    def fid_at_scale(self, scale: float) -> Tensor | None:
        """FID at a scale, (1 + R,), ln(FID) a straight line between neighbours; None outside."""
        scales = [float(m.row["scale"]) for m in self.points]
        if scale in scales:
            return self.fid[scales.index(scale)]
        for index, (low, high) in enumerate(pairwise(scales)):
            if low < scale < high:
                share = (scale - low) / (high - low)
                return _straight(self.fid[index], self.fid[index + 1], share)
        return None

    def _offers(self, level: float | Tensor) -> tuple[Tensor, Tensor]:
        """What the front has at a confidence of `level` or more, infinite where it has nothing:
        its n points, then the n - 1 lines between them; and how far along each line."""
        infinite = torch.full_like(self.fid, torch.inf)
        points = torch.where(self.confidence >= level, self.fid, infinite)
        a, b = self.confidence[:-1], self.confidence[1:]
        share = (level - a) / torch.where(b == a, torch.ones_like(a), b - a)
        crossing = (share > 0) & (share < 1) & (a != b)
        lines = torch.where(crossing, _straight(self.fid[:-1], self.fid[1:], share), infinite[1:])
        return torch.cat([points, lines]), share


def _straight(one: Tensor, other: Tensor, share: float | Tensor) -> Tensor:
    """Between two FIDs, on a straight line of their logarithms."""
    low, high = one.clamp(min=1e-12).log(), other.clamp(min=1e-12).log()
    return (low + share * (high - low)).exp()
