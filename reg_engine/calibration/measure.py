"""What a damping is measured from: clean samples, noised, and both estimates at every level.

* rayleigh: F = E<K delta, delta> / E<delta, delta>, K delta by one finite difference: the mean of
  REG's factor along delta (Eq. 22 of REG, arXiv 2501.18865), the same for every w.
* tilt: least squares against golden guidance (Theorem 4.1 there). Under the tilted law
  p(x_0|y)^(1+w) / p(x_0)^w the golden estimate is E~[x_0 | x_t], so that

      F = E~<x_0 - cond, delta> / (w E~<delta, delta>),

  and E~ is the mean of class samples with weights exp(w l), l = log p(x_0|y) / p(x_0). Where F
  multiplies an estimator's K delta, that stands for delta in both means. Noising is one kernel for
  both laws, so l is the log-ratio of their densities of a noised path: the sum, over the path, of
  the log-ratios of the two models' reverse transitions, which are Gaussians (Girsanov). No
  divergence, no Jacobian, no classifier.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError, NumericalError
from ..guidance.directions import Delta
from ..networks.conditioning import Cond, each
from ..networks.frozen import frozen
from ..networks.point import Direction, Point
from ..rectifiers import FD
from .samples import Samples

__all__ = ["Measured", "rayleigh", "tilt"]

FINE = 3  # steps of a path from one level of a tilt table to the next
PRIOR = 0.5  # deviation from 1 of a tilt factor before anything is measured


class Measured(NamedTuple):
    """Factors (scales, levels), their standard errors, and what was rejected at each scale."""

    factors: list[list[float]]
    errors: list[list[float]]
    rejected: list[float]
    effective: list[float]  # samples that the tilted mean amounts to


def rayleigh(samples: Samples, levels: tuple[float, ...]) -> Measured:
    """F = E<K delta, delta> / E<delta, delta> at every level: 3 evaluations a sample and level."""
    count = len(samples.seeds)
    along, norms = (torch.zeros(len(levels), count, dtype=torch.float64) for _ in range(2))
    rows = samples.rows_at(levels)
    with frozen(samples.engine.modules), torch.inference_mode():
        for part, x0, cond, noise in samples.batches():
            for index, row in enumerate(rows):
                state = x0 + row.noise_level * noise.normal(x0)
                _, k_delta, delta = FD()(samples.point(state, row, part, cond), Delta())
                along[index, part] = _inner(k_delta, delta)
                norms[index, part] = _inner(delta, delta)
    _check(levels, along + norms)
    total = norms.sum(1)
    factors = along.sum(1) / total
    spread = (along - factors[:, None] * norms).square().sum(1).sqrt()
    return Measured([_filled(factors, total)], [_filled(spread / total, total)], [], [])


@dataclass(frozen=True)
class _Paths:
    """What paths of all samples showed, by row: <x_0 - cond, delta> and <delta, delta> (rows, N)
    of every repeat (K delta, where it is rectified), the level that each row belongs to, and l
    (N,)."""

    gains: list[Tensor]
    norms: list[Tensor]
    nearest: Tensor
    log_ratio: Tensor


def tilt(
    samples: Samples,
    levels: tuple[float, ...],
    scales: tuple[float, ...],
    repeats: int,
    rectified: bool = False,
) -> Measured:
    """Least squares against golden at every scale: 2 evaluations a sample, row and repeat; 3 where
    K delta is `rectified`."""
    groups = _groups(samples.cond, len(samples.seeds))
    paths = _paths(samples, levels, repeats, rectified)
    classes = samples.engine.denoiser.num_classes
    top = math.inf if classes is None else math.log(classes)  # l <= log 1/p(y)
    ratio = paths.log_ratio.clamp_max(top)
    factors, errors, rejected, effective = [], [], [], []
    for scale in scales:
        w, p = scale - 1, torch.zeros_like(ratio)
        kept, sizes = [], []
        for own in groups:
            tilted = w * ratio[own]
            p[own] = tilted.softmax(0) / len(groups)
            bound = w * top if classes is not None else float(tilted.max())
            kept.append(float((tilted - bound).exp().mean()))
            sizes.append(1 / float((p[own] * len(groups)).square().sum()))
        found = _solved(paths, w, p, _equal(groups, p), len(levels))
        factors.append(found[0])
        errors.append(found[1])
        rejected.append(1 - sum(kept) / len(kept))
        effective.append(sum(sizes))
    return Measured(factors, errors, rejected, effective)


def _solved(
    paths: _Paths, w: float, p: Tensor, equal: Tensor, count: int
) -> tuple[list[float], list[float]]:
    """F and its standard error at `count` levels for sample weights p.

    E<x_0 - cond, delta> = 0 under equal weights, so that p - equal takes the place of p: less
    variance, and exactly 0 where l is constant. A factor is shrunk towards 1, its low-noise limit,
    by its own error: there x_0 - cond is noise next to delta, and w F delta next to nothing.
    """
    gain = torch.zeros(count, len(p), dtype=torch.float64)
    norm = torch.zeros(count, dtype=torch.float64)
    for gains, norms in zip(paths.gains, paths.norms, strict=True):
        gain.index_add_(0, paths.nearest, (p - equal) * gains)
        norm.index_add_(0, paths.nearest, w * norms @ p)
    raw = gain.sum(1) / norm
    variance = (gain.square().sum(1) / norm.square()).clamp_min(1e-12)
    shrunk = (raw / variance + 1 / PRIOR**2) / (1 / variance + 1 / PRIOR**2)
    return _filled(shrunk, norm), _filled(variance.sqrt(), norm)


def _paths(samples: Samples, levels: tuple[float, ...], repeats: int, rectified: bool) -> _Paths:
    fine = _refined(levels)
    rows, count = samples.rows_at(fine), len(samples.seeds)
    logs = torch.tensor(fine, dtype=torch.float64).log()[:, None]
    nearest = (logs - torch.tensor(levels, dtype=torch.float64).log()).abs().argmin(1)
    paths = _Paths([], [], nearest, torch.zeros(count, dtype=torch.float64))
    terms: Callable[..., tuple[Tensor, Tensor, Tensor]] = FD() if rectified else _plain
    with frozen(samples.engine.modules), torch.inference_mode():
        for repeat in range(repeats):
            gains, norms = (torch.zeros(len(fine), count, dtype=torch.float64) for _ in range(2))
            for part, x0, cond, noise in samples.batches(repeat):
                state, below = x0, 0.0
                for index, row in enumerate(rows):
                    level, last = row.noise_level, state
                    state = state + math.sqrt(level**2 - below**2) * noise.normal(x0)
                    own, term, delta = terms(samples.point(state, row, part, cond), Delta())
                    gains[index, part] = _inner(x0 - own, term)
                    norms[index, part] = _inner(term, term)
                    if index:  # the transition from this level to the one below
                        step = _log_transition(state, last, own, own - delta, level, below)
                        paths.log_ratio[part] += step / repeats
                    below = level
            paths.gains.append(gains)
            paths.norms.append(norms)
    _check(fine, torch.stack(paths.norms).sum(0))
    return paths


def _plain(point: Point, direction: Direction) -> tuple[Tensor, Tensor, Tensor]:
    """(cond, delta, delta): what no estimator makes of it."""
    ref, cond = point.stack(point.x)
    delta = direction(point, cond, ref)
    return cond, delta, delta


def _log_transition(
    state: Tensor, last: Tensor, cond: Tensor, ref: Tensor, level: float, below: float
) -> Tensor:
    """log N(last; mean under cond) - the same under ref, (B,): the reverse transition from x_0 +
    noise of `level` to x_0 + noise of `below` has the mean r state + (1 - r) E[x_0], r = below^2 /
    level^2, and the variance below^2 (1 - r)."""
    r = (below / level) ** 2
    middle = r * state + (1 - r) * (cond + ref) / 2
    return _inner(cond - ref, last - middle) / below**2


def _refined(levels: tuple[float, ...]) -> tuple[float, ...]:
    """`levels` and FINE - 1 more between each two, in equal ratios."""
    inside = [
        low * (high / low) ** (j / FINE)
        for low, high in zip(levels, levels[1:], strict=False)
        for j in range(FINE)
    ]
    return (*inside, levels[-1])


def _groups(cond: Cond, count: int) -> list[Tensor]:
    """Which samples share a conditioning: a tilted mean is one of a single y.

    Raises:
        InputError: one of them has a single sample.
    """
    columns: list[Tensor] = []
    each(lambda t: columns.append(t.reshape(len(t), -1).double().cpu()), cond)
    if not columns:
        return [torch.arange(count)]
    _, which = torch.cat(columns, 1).unique(dim=0, return_inverse=True)
    groups = [(which == number).nonzero()[:, 0] for number in range(int(which.max()) + 1)]
    if min(map(len, groups)) < 2:
        raise InputError(
            "cond",
            f"has {len(groups)} conditionings for {count} samples, and some have a single one",
            "Give several seeds for each (hundreds, for tilt), or method='rayleigh'",
        )
    return groups


def _equal(groups: list[Tensor], like: Tensor) -> Tensor:
    """The weights of samples under p(x_0|y), the same for every y."""
    equal = torch.zeros_like(like)
    for own in groups:
        equal[own] = 1 / (len(own) * len(groups))
    return equal


def _check(levels: tuple[float, ...], values: Tensor) -> None:
    """NaN or Inf, and a condition that changes nothing, are said."""
    for level, row in zip(levels, values, strict=True):
        if not bool(row.isfinite().all()):
            bad = (~row.isfinite()).nonzero()[:, 0].tolist()[:8]
            raise NumericalError(f"NaN or Inf at noise level {level:.3g} in samples {bad}")
    if not bool(values.any()):
        raise InputError(
            "cond",
            "changes nothing at any noise level: delta is 0, there is no gain to damp",
            "Calibrate a conditional model with conditions it knows",
        )


def _filled(values: Tensor, norms: Tensor) -> list[float]:
    """`values`; where delta is 0 and F has nothing to multiply, that of the nearest level."""
    known = (norms > 0).nonzero()[:, 0]
    nearest = (torch.arange(len(values))[:, None] - known).abs().argmin(1)
    filled: list[float] = values[known[nearest]].tolist()
    return filled


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> of every sample, (B,), float64 on the host."""
    return (a * b).flatten(1).sum(1, dtype=torch.float64).cpu()
