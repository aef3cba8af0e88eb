"""Feedback guidance: a weight that follows how well each sample has obeyed the condition so far."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..networks.point import Point
from ..solvers import Table
from ..values import as_float, store

__all__ = ["Feedback"]

HIGHEST = 3.0  # of log p, as released: it can fall again within a few steps
AIM, RATE = 3.0, 10.0  # what `timed` means by begin and peak, as released
KEPT = ("cond", "delta", "pull", "scale", "log")


@dataclass(frozen=True)
class Feedback:
    """Feedback guidance (Koulischer et al., arXiv 2506.06085): scale = p / (p - (1 - mix)).

    The learned conditional is taken for mix times the true one plus (1 - mix) times the reference.
    p is the likelihood ratio of cond to the reference along the way. At each step that lowers the
    noise level from n to n', with r = n'^2/n^2 and x, x' over their alpha, log p grows by
    temperature (|x' - m_ref|^2 - |x' - m_cond|^2) / (2 (1 - r) n'^2) + offset, where m = r x +
    (1 - r) denoised. `delta` must be cond - ref: beside APG or FDG the ratio means nothing.

    Of a step with several evaluations at one level, the last tells where the step went.

    Args:
        temperature: >= 0; how much a step counts.
        offset: added at each step; negative, so that guidance begins by itself.
        mix: in (0, 1).
        largest: the scale is kept below, > 1.
    """

    temperature: float
    offset: float
    mix: float = 0.95
    largest: float = 10.0

    def __post_init__(self) -> None:
        remedy = "Give a finite number >= 0, or use Feedback.timed(table)"
        temperature = as_float("temperature", self.temperature, remedy, lambda v: 0 <= v < math.inf)
        offset = as_float("offset", self.offset, "Give a finite number, below 0 in the paper")
        mix = as_float("mix", self.mix, "Give a number between 0 and 1", lambda v: 0 < v < 1)
        remedy = "Give a finite scale > 1"
        largest = as_float("largest", self.largest, remedy, lambda v: 1 < v < math.inf)
        store(self, temperature=temperature, offset=offset, mix=mix, largest=largest)

    @classmethod
    def timed(
        cls,
        table: Table,
        begin: float = 0.5,
        peak: float = 0.4,
        mix: float = 0.95,
        largest: float = 10.0,
    ) -> Feedback:
        """Temperature and offset as released: an undecided sample reaches scale 3 when `begin` of
        the steps are left, and where `peak` are left, a step can undo ten offsets.

        Args:
            table: of the solver, such as `engine.table`.
            begin, peak: shares of the steps, begin in [0, 1), peak in (0, 1).

        Raises:
            InputError: a share out of range; fewer than three finite noise levels.
        """
        remedy = "Give a share of the steps, such as 0.5"
        begin = as_float("begin", begin, remedy, lambda v: 0 <= v < 1)
        peak = as_float("peak", peak, remedy, lambda v: 0 < v < 1)
        mix = cls(0.0, 0.0, mix, largest).mix
        levels = sorted({row.noise_level for row in table.rows} - {math.inf})
        if len(levels) < 3:
            raise InputError("table", f"has {len(levels)} noise levels", "Take more steps")
        offset = math.log((1 - mix) * AIM / (AIM - 1)) / ((1 - begin) * len(levels))
        # the variance of each step by where it starts; the last one leaves no noise
        variances = [0.0]
        variances += [(1 - (n / m) ** 2) * n**2 for n, m in zip(levels, levels[1:], strict=False)]
        place = peak * len(levels)
        low = int(place)
        high = min(low + 1, len(levels) - 1)
        share = place - low
        variance = (1 - share) * variances[low] + share * variances[high]
        return cls(abs(2 * variance * offset / RATE), offset, mix, largest)

    def per_sample(self, point: Point, cond: Tensor, delta: Tensor) -> Tensor:
        """w (B,)."""
        # (alpha/sigma)^2 and what the step's mean takes of x are finite where alpha is 0, too
        scale = (point.alpha / point.sigma) ** 2 * cond.new_ones(1)
        pull = point.alpha / point.sigma**2 * point.x - scale * cond
        here = {"cond": cond, "delta": delta, "pull": pull, "scale": scale}
        memory = point.memory
        if memory.get("feedback last log") is None:
            log = cond.new_zeros(len(cond))
            start = here | {"log": log}
        else:
            last, start = (
                {n: memory[f"feedback {w} {n}"] for n in KEPT} for w in ("last", "start")
            )
            lower = scale > last["scale"]  # another level: the step ended where the last one stood
            start = {name: torch.where(lower, last[name], start[name]) for name in KEPT}
            log = self._followed(point, start, scale)
        for word, kept in (("last", here | {"log": log}), ("start", start)):
            for name in KEPT:
                memory[f"feedback {word} {name}"] = kept[name]
        return (1 - self.mix) / (log.exp() - (1 - self.mix))

    def _followed(self, point: Point, start: dict[str, Tensor], scale: Tensor) -> Tensor:
        """log p after the step from `start` to this point; as before where it did not descend."""
        kept = start["scale"] / scale  # n'^2 / n^2
        delta = start["delta"]
        error = point.x / point.alpha - start["cond"] - start["pull"] / scale
        gain = error * delta + (1 - kept) / 2 * delta**2
        change = self.temperature * scale * gain.flatten(1).sum(1) + self.offset
        log = torch.where(scale > start["scale"], start["log"] + change, start["log"])
        least = math.log((1 - self.mix) * self.largest / (self.largest - 1))
        return log.clamp(least, HIGHEST)
