"""Damping: REG's gain for CFG's evaluations, from one table that is measured once for a model.

damping = calibrate_damping(model, labels)
sample(model, labels, scale=damping(4.0))
"""

from __future__ import annotations

import json
import math
import os
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..checks import known_names
from ..engine import Engine
from ..errors import InputError, choice
from ..guidance.damped import Damped, as_damped_scale, as_factors, as_increasing
from ..networks.fingerprint import fingerprint
from ..storage.files import write_whole
from ..storage.readers import read_json, refusing
from ..values import as_bool, as_float, as_int, as_tuple, shown, store
from .measure import rayleigh, tilt
from .samples import levels_of, samples_of

__all__ = ["METHODS", "Damping", "calibrate_damping"]

METHODS = ("rayleigh", "tilt")
LEVELS = {"rayleigh": 16, "tilt": 18}
SAMPLES = {"rayleigh": 64, "tilt": 512}
DECAY = {"rayleigh": 2.0, "tilt": 0.0}
_FORMAT = "reg_engine.damping/1"
_RECTIFIED = "reg_engine.damping/2"  # of K delta: what reads 1 alone must not take it for delta's


@dataclass(frozen=True)
class Damping:
    """F by noise level, measured once; `damping(scale)` is the weight (scale - 1) F.

    Args:
        method: "rayleigh" or "tilt".
        levels: strictly increasing noise levels sigma/alpha > 0.
        factors: F >= 0 at each: one row for every scale (rayleigh), or one for each of `scales`.
        scales: strictly increasing, > 1, of tilt; () of rayleigh.
        rejected: of tilt, in [0, 1], one for each scale: see `headroom`.
        model: fingerprint of the model; a warning meets its use on another one.
        report: what was measured beside (read back from JSON): samples, evaluations, standard
            errors. It changes nothing.
        rectified: of tilt: F multiplies K delta, so that an estimator of it goes with the weight.

    Raises:
        InputError: a table that does not fit, or a value out of range.
    """

    method: str
    levels: tuple[float, ...]
    factors: tuple[tuple[float, ...], ...]
    scales: tuple[float, ...] = ()
    rejected: tuple[float, ...] = ()
    model: str = ""
    report: Mapping[str, Any] = field(default_factory=dict, compare=False)
    rectified: bool = False

    def __repr__(self) -> str:
        low, high = self.levels[0], self.levels[-1]
        method = f"{self.method} of K delta" if self.rectified else self.method
        served = ", ".join(f"{scale:g}" for scale in self.scales) or "every scale"
        return f"Damping({method}, {len(self.levels)} levels {low:.3g} to {high:.3g}, {served})"

    def __post_init__(self) -> None:
        choice("method", self.method, METHODS)
        store(self, levels=as_increasing("levels", self.levels))
        rows = as_tuple("factors", self.factors, "Give one row of factors for each scale")
        store(self, factors=tuple(as_factors(row, len(self.levels)) for row in rows))
        store(self, scales=as_scales(self.scales) if self.scales else ())
        remedy = "Give a number in [0, 1] for each scale"
        shares = as_tuple("rejected", self.rejected, remedy)
        shares = tuple(as_float("rejected", v, remedy, lambda v: 0 <= v <= 1) for v in shares)
        store(self, rejected=shares)
        if bool(self.scales) != (self.method == "tilt"):
            raise InputError("scales", f"are {shown(self.scales)}", "tilt has them, rayleigh none")
        if len(self.factors) != max(1, len(self.scales)) or len(shares) != len(self.scales):
            raise InputError(
                "factors",
                f"{len(self.factors)} rows, {len(shares)} rejected shares, {len(self.scales)} "
                "scales",
                "Give one row and one share for each scale; rayleigh has one row and no share",
            )
        if not isinstance(self.model, str):
            raise InputError("model", f"is {shown(self.model)}", "Give a fingerprint, or ''")
        store(self, rectified=_as_rectified(self.rectified, self.method))
        if not isinstance(self.report, Mapping):
            raise InputError("report", f"is a {type(self.report).__name__}", "Give a dict")

    def __call__(self, scale: float, *more: object, skip_below: float = 0.0) -> Damped:
        """The weight w = (scale - 1) F, for `scale=` or `Guidance(weight=)`.

        Args:
            scale: >= 1; of tilt between the least and the largest of `scales`, F linear in between.
            skip_below: in [0, 1]; where F is less, w = 0 and the reference is not evaluated.

        Raises:
            InputError: a scale or a share out of range; a Damping given where a weight belongs.
        """
        if more:  # asked as a weight, (row, table)
            raise InputError("scale", "is a Damping without a scale", "Give damping(4.0)")
        scale = as_damped_scale(scale)
        rows = self.factors * 2 if not self.scales else self.factors
        below, share = self._between(scale) if self.scales else (0, 0.0)
        low, high = rows[below], rows[min(below + 1, len(rows) - 1)]
        factors = tuple(a + share * (b - a) for a, b in zip(low, high, strict=True))
        decay = DECAY[self.method]
        return Damped(scale, self.levels, factors, decay, skip_below, self.model, self.rectified)

    def headroom(self, scale: float) -> float:
        """The share of p(x_0|y) that the target p(x_0|y)^(1+w) / p(x_0)^w rejects, w = scale - 1.

        In [0, 1]. Rejection sampling keeps x_0 of class y with probability p(y|x_0)^w; this is what
        it throws away. Near 0 the conditional model is the target already: whatever guidance then
        does, theory did not ask for it. Where the model has no `num_classes`, the bound is the
        largest ratio among the samples, which overstates the share that is kept.

        Raises:
            InputError: measured by rayleigh, or a scale outside the calibrated ones.
        """
        if not self.scales:
            raise InputError(
                "method", "rayleigh does not measure what a target rejects", "Calibrate with tilt"
            )
        below, share = self._between(as_damped_scale(scale))
        low, high = self.rejected[below], self.rejected[min(below + 1, len(self.rejected) - 1)]
        return low + share * (high - low)

    def meaning(self, scale: float) -> str:
        """What the headroom says, as a sentence."""
        share = self.headroom(scale)
        ask = "almost nothing" if share < 0.03 else "little" if share < 0.1 else "a change"
        return (
            f"At scale {scale:g} the target rejects {share:.1%} of the conditional model's samples:"
            f" theory asks guidance for {ask}."
        )

    def _between(self, scale: float) -> tuple[int, float]:
        """The calibrated scale at or below, and how far to the next, in [0, 1)."""
        scales = self.scales
        if not scales[0] <= scale <= scales[-1]:
            raise InputError(
                "scale",
                f"is {scale:g}, outside the calibrated {scales[0]:g} to {scales[-1]:g}",
                "Calibrate with scales= that hold it, or use method='rayleigh'",
            )
        above = bisect_left(scales, scale)
        if scales[above] == scale:
            return above, 0.0
        return above - 1, (scale - scales[above - 1]) / (scales[above] - scales[above - 1])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, whole or not at all."""
        data = {"format": _RECTIFIED if self.rectified else _FORMAT}
        data |= {name: getattr(self, name) for name in _FIELDS}
        data["report"] = dict(self.report)  # type: ignore[assignment]
        write_whole(Path(path), (json.dumps(data, indent=1) + "\n").encode(), "path")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Damping:
        """Read what `save` wrote.

        Raises:
            InputError: no such file, not JSON, or not a damping.
        """
        remedy = "Give a file written by Damping.save or `reg-engine calibrate --damping`"
        data = read_json(path, "damping", remedy)
        if not isinstance(data, dict) or data.get("format") not in (_FORMAT, _RECTIFIED):
            raise InputError("damping", f"{path} is not a damping of {_FORMAT!r}", remedy)
        kinds = {**dict.fromkeys(_FIELDS, list), "method": str, "model": str, "report": dict}
        for name, kind in kinds.items():
            if not isinstance(data.get(name), kind):
                raise InputError("damping", f"{path} lacks {name}", remedy)
        rows = data["factors"]
        lists = [data["levels"], data["scales"], data["rejected"], *rows]
        if not all(isinstance(row, list) for row in rows) or (
            {type(value) for row in lists for value in row} - {int, float}
        ):
            raise InputError("damping", f"{path} has tables that are not numbers", remedy)
        with refusing("damping", f"{path} is damaged", remedy):
            kept = {name: data[name] for name in kinds}
            return cls(**kept, rectified=data["format"] == _RECTIFIED)


_FIELDS = ("method", "levels", "factors", "scales", "rejected", "model")


def calibrate_damping(
    model: Any,
    cond: Any,
    scales: Iterable[float] = (2.0, 3.0, 5.0),
    x0: Tensor | None = None,
    method: str = "rayleigh",
    *,
    seeds: Iterable[int] | None = None,
    levels: Iterable[float] | None = None,
    repeats: int = 4,
    rectified: bool = False,
    **choices: Any,
) -> Damping:
    """Measure F at every noise level, from clean samples of the classes (measure.py says how).

    rayleigh: REG's mean factor along delta; 3 evaluations a sample and level, some dozens of
    samples, every scale. tilt: the best factor against golden guidance, scale by scale, and the
    `headroom`; hundreds of samples of each conditioning, 52 levels, 2 evaluations each, `repeats`
    times. It takes the classes to be equally frequent.

    Args:
        model: a Denoiser, or what `denoiser_of` makes one of.
        cond: as for `sample`; rows are repeated in turn until there is one a seed.
        scales: of tilt: increasing, > 1. A damping by rayleigh serves every scale >= 1.
        x0: clean samples (N, *sample_shape), row k of condition k; None = the conditional model's
            own, sampled at scale 1.
        method: "rayleigh" or "tilt".
        seeds: one a sample; None = as many as x0 or cond have rows, at least 64 (rayleigh) or 512
            (tilt) without x0.
        levels: noise levels sigma/alpha, two or more, increasing; None = 16 (tilt: 18) in equal
            ratios from 0.02 to 80 or the model's noisiest. Independent of schedule and solver. For
            tilt the last must be far above the distance of the classes: what tells them apart
            there is missing from l.
        repeats: of tilt: noised paths of every sample, >= 1.
        rectified: of tilt: the best factor on top of K delta (a third evaluation each), for
            `Guidance(damping(scale), rectify="fd_batched")` and other estimators of K delta.
        choices: as for `Engine` (solver, steps, batch_size, device, dtype, progress, ...).

    Raises:
        InputError: a bad argument, or a condition that changes nothing (delta = 0).
        NumericalError: NaN or Inf in a prediction.
    """
    _unsettled(choices)
    choice("method", method, METHODS)
    asked = as_scales(scales) if method == "tilt" else ()
    repeats, rectified = as_int("repeats", repeats), _as_rectified(rectified, method)
    engine = Engine(model, scale=1.0, rectify=None, **choices)
    levels = levels_of(levels, engine.denoiser.schedule, LEVELS[method])
    samples = samples_of(engine, cond, x0, seeds, SAMPLES[method])
    if method == "rayleigh":
        found, asks = rayleigh(samples, levels), 3 * len(levels)
    else:
        found = tilt(samples, levels, asked, repeats, rectified)
        asks = (2 + rectified) * repeats * (3 * len(levels) - 2)
    report: dict[str, Any] = {"samples": len(samples.seeds), "evaluations": asks}
    report |= {"errors": found.errors, "effective_samples": found.effective}
    factors = tuple(tuple(max(f, 0.0) for f in row) for row in found.factors)
    rejected = tuple(min(max(share, 0.0), 1.0) for share in found.rejected)
    model = fingerprint(engine.denoiser)
    return Damping(method, levels, factors, asked, rejected, model, report, rectified)


def _as_rectified(rectified: bool, method: str) -> bool:
    """A bool, True of tilt alone: rayleigh is the mean of K delta itself."""
    rectified = as_bool("rectified", rectified)
    if rectified and method != "tilt":
        raise InputError("rectified", "is for tilt: rayleigh stands for K", "Give method='tilt'")
    return rectified


def _unsettled(choices: dict[str, Any]) -> None:
    known_names(choices, Engine.__init__, "calibrate_damping")
    for name in ("scale", "guidance", "rectify", "plan"):
        if choices.get(name) is not None:
            raise InputError(name, "is what calibration settles", "Leave it out")


def as_scales(scales: object) -> tuple[float, ...]:
    """Strictly increasing, finite scales > 1, else InputError."""
    remedy = "Give increasing scales > 1, such as (2.0, 3.0, 5.0)"
    found = as_tuple("scales", scales, remedy)
    found = tuple(as_float("scales", v, remedy, lambda v: 1 < v < math.inf) for v in found)
    return as_increasing("scales", found)
