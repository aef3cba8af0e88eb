"""Independent condition guidance: the reference of a network that knows no null conditioning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..networks.conditioning import Cond, as_cond, each, signature, size, take
from ..networks.denoisers import Denoiser
from ..networks.point import Point
from ..noise import SampleNoise
from ..values import as_bool, store
from .references import GuidedNetwork

__all__ = ["ICG"]

ODD = 0x2545F4914F6CDD1D  # of a multiplicative hash: an odd number without a pattern
KEPT = 2**62 - 1


@dataclass(frozen=True, eq=False)
class ICG(GuidedNetwork):
    """Independent condition guidance (Sadat et al., arXiv 2407.02687, Alg. 1): the same network
    with a condition drawn at random, whatever the sample's own.

    A condition that is independent of x_t tells nothing about it, so the score is the unconditional
    one: no null conditioning is needed. What is drawn follows from the sample's seed and the number
    of the evaluation alone. cond and the reference share a batch.

    Args:
        conditions: what to draw from, as `sample` takes conditionings, one row each; None = every
            class, the sample's own included, as published.
        redraw: at every evaluation, as published; False = once a sample, which solvers of higher
            order can follow.

    Raises:
        InputError: no classes and no conditions; conditions unlike those of the call.
    """

    conditions: Any = None
    redraw: bool = True

    def __post_init__(self) -> None:
        store(self, redraw=as_bool("redraw", self.redraw))

    def conditioning(
        self, denoiser: Denoiser, cond: Cond, count: int, device: torch.device
    ) -> Cond:
        """As `drawn`, of the seeds 0 .. count-1."""
        return self.drawn(denoiser, cond, range(count), device)

    def drawn(
        self, denoiser: Denoiser, cond: Cond, seeds: Sequence[int], device: torch.device
    ) -> Cond:
        """A random integer a sample (B,), of which `null` makes its condition at each row."""
        classes, null = denoiser.num_classes, denoiser.null_cond
        if self.conditions is not None:
            as_cond(self.conditions, None, classes, null, device, "conditions")
        elif classes is None:
            problem = "are none, and the model has no classes"
            raise InputError("conditions", problem, "Give ICG(conditions=...)")
        pool = self._pool(denoiser, device)
        rows: set[int] = set()
        each(lambda tensor: rows.add(len(tensor)), pool)
        if len(rows) != 1 or cond is None or _kind(pool) != _kind(cond):
            problem = "are unlike the conditioning of the call, or of different lengths"
            raise InputError(
                "conditions", problem, "Give rows of the same names, shapes and dtypes"
            )
        numbers = SampleNoise(seeds, "conditions").below(KEPT)
        return torch.tensor(numbers, dtype=torch.int64, device=device)

    def null(self, point: Point) -> Cond | None:
        numbers = point.reference_cond()
        assert isinstance(numbers, Tensor)
        pool = self._pool(point.denoiser, point.x.device)
        count = size(pool)
        mixed = numbers + (point.number * ODD & KEPT if self.redraw else 0)
        for shift in (29, 31):  # of all 62 bits, so that the row's number reaches every one
            mixed = ((mixed ^ (mixed >> shift)) * ODD) & KEPT
        chosen = (mixed >> 20) % count
        found: Cond = each(lambda tensor: tensor.index_select(0, chosen), pool)
        return found

    def denoised(self, point: Point, cond: Tensor) -> Tensor:
        null = self.null(point)
        return point.evaluate(point.denoiser, point.x, null)

    def _pool(self, denoiser: Denoiser, device: torch.device) -> Cond:
        if self.conditions is None:
            return torch.arange(denoiser.num_classes or 1, device=device)
        pool = _moved(self, device)
        labels = isinstance(pool, Tensor) and denoiser.num_classes is not None
        return pool.reshape(-1).long() if labels else pool  # type: ignore[union-attr]


@lru_cache(maxsize=8)
def _moved(reference: ICG, device: torch.device) -> Cond:
    """The conditions on a device, where a recorded graph finds them again."""
    return as_cond(reference.conditions, None, None, None, device, "conditions")


def _kind(cond: Cond) -> object:
    return signature(take(cond, slice(0, 1)))
