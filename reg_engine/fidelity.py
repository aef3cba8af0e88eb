"""How samples lie among real data: distances, precision and recall, memorisation, error bars.

All of it works on points or feature vectors; images are flattened. Neighbours are found by
scikit-learn; what is compared afterwards is recomputed in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import InputError
from .schedules.base import check_number, positive_int

__all__ = [
    "Memorisation",
    "bootstrap",
    "half_width",
    "inside",
    "memorisation",
    "nearest_distances",
    "precision_recall",
]

EXACT_DIMENSIONS = 16  # up to here distances by differences; above, by one matrix product
BLOCK = 2**24  # distances, or differences, held at a time
Z = 1.959963984540054  # half-widths are Z deviations of the bootstrap: 95 % of a normal law


@dataclass(frozen=True)
class Memorisation:
    """Distances from samples to the training set beside those from real data held out of it.

    Attributes:
        nearer: share of pairs (sample, held-out real point) in which the sample is nearer to its
            nearest training point; ties count half. 0.5: like real data. 1: copies. Below 0.5:
            farther from the data than real points are. It is the statistic of Mann and Whitney
            that Meehan et al. 2020 (arXiv 2004.05675) test for data copying.
        low, high: its 95 % interval (bootstrap over samples and held-out points).
        below_typical: share of samples nearer than the median held-out point is; 0.5 for real data.
        samples_median, heldout_median: median distances to the training set.
    """

    nearer: float
    low: float
    high: float
    below_typical: float
    samples_median: float
    heldout_median: float


def nearest_distances(samples: Tensor, real: Tensor) -> Tensor:
    """Euclidean distance from each sample to the nearest real point.

    Args:
        samples: (n, ...); real: (m, ...), flattened to vectors of one length.

    Returns:
        (n,) float64 on the CPU; 0 where a sample is a real point.

    Raises:
        InputError: scikit-learn is missing; empty or non-finite sets; different dimensions.
    """
    a, b = _pair(samples, real)
    found = _sklearn()(n_neighbors=1).fit(b).kneighbors(a, return_distance=False)[:, 0]
    rows = max(1, BLOCK // a.shape[1])
    # Again by differences: a matrix product leaves about 1e-8 of the norm where the distance is 0.
    parts = [
        np.linalg.norm(a[s : s + rows] - b[found[s : s + rows]], axis=1)
        for s in range(0, len(a), rows)
    ]
    return torch.from_numpy(np.concatenate(parts))


def inside(points: Tensor, manifold: Tensor, k: int = 3) -> Tensor:
    """Which points lie in the k-NN manifold of a set (Kynkaanniemi et al. 2019, Eq. 1).

    The manifold is the union of balls around the set's points, each as large as the distance to
    its k-th nearest other point. Memory for BLOCK distances; time grows as n m.

    Args:
        points: (n, ...). manifold: (m, ...), m > k. k: neighbours >= 1.

    Returns:
        (n,) bool on the CPU.

    Raises:
        InputError: as nearest_distances; k not in [1, m).
    """
    a, b = _pair(points, manifold)
    if positive_int("k", k) >= len(b):
        raise InputError(
            "k", f"is {k} for a set of {len(b)} points", "Give k < its size, or more points"
        )
    radii = torch.from_numpy(_sklearn()(n_neighbors=k).fit(b).kneighbors()[0][:, -1])
    mode = "donot_use_mm_for_euclid_dist"
    if a.shape[1] > EXACT_DIMENSIONS:
        middle = b.mean(axis=0)  # smaller norms cancel less
        a, b, mode = a - middle, b - middle, "use_mm_for_euclid_dist"
    centres = torch.from_numpy(b)
    parts = torch.from_numpy(a).split(max(1, BLOCK // len(b)))
    return torch.cat(
        [(torch.cdist(rows, centres, compute_mode=mode) <= radii).any(1) for rows in parts]
    )


def precision_recall(samples: Tensor, real: Tensor, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991, Eq. 2).

    Args:
        samples: (n, ...), real: (m, ...), n and m > k; sets of one size compare best.
        k: neighbours that make a ball; theirs is 3.

    Returns:
        (share of samples in the real manifold, share of real points in the samples' manifold).

    Raises:
        InputError: as `inside`.
    """
    precision = inside(samples, real, k).double().mean()
    return float(precision), float(inside(real, samples, k).double().mean())


def memorisation(
    samples: Tensor,
    train: Tensor,
    heldout: Tensor,
    *,
    count: int = 1000,
    generator: torch.Generator | None = None,
) -> Memorisation:
    """Whether samples lie nearer to the training set than real data does that was held out of it.

    Args:
        samples: (n, ...). train: (m, ...), what the model saw. heldout: (h, ...), real, unseen.
        count: bootstrap resamples.
        generator: of the resamples; None = seed 0.

    Raises:
        InputError: as nearest_distances.
    """
    ours, theirs = nearest_distances(samples, train), nearest_distances(heldout, train)
    generator = generator or torch.Generator().manual_seed(0)
    both = len(ours), len(theirs)
    draws = []
    for _ in range(positive_int("count", count)):
        a, b = (torch.randint(size, (size,), generator=generator) for size in both)
        draws.append(_nearer(ours[a], theirs[b]))
    low, high = torch.tensor(draws, dtype=torch.float64).quantile(_tails(0.95)).tolist()
    typical = _median(theirs)
    return Memorisation(
        _nearer(ours, theirs),
        low,
        high,
        float((ours < typical).double().mean()),
        _median(ours),
        typical,
    )


def bootstrap(
    values: Tensor | Callable[[Tensor], float],
    count: int = 1000,
    generator: torch.Generator | None = None,
    *,
    size: int | None = None,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of a statistic over resamples with replacement (Efron 1979).

    Args:
        values: (n,) numbers whose mean is the statistic; or a function of indices (n,) LongTensor.
        count: resamples.
        generator: on the CPU; None = seed 0.
        size: n, needed where `values` is a function.
        level: of the interval, in (0, 1).

    Returns:
        (low, high).

    Raises:
        InputError: no values, a function without size, count < 1, level outside (0, 1).
    """
    check_number("level", level, 0, 1)
    if isinstance(values, Tensor):
        numbers = values.detach().cpu().double().flatten()
        size = len(numbers)
    if not size:
        raise InputError("size", f"is {size}", "Give values, or the number of them, >= 1")
    generator = generator or torch.Generator().manual_seed(0)
    draws = []
    for _ in range(positive_int("count", count)):
        rows = torch.randint(size, (size,), generator=generator)
        draws.append(float(numbers[rows].mean() if isinstance(values, Tensor) else values(rows)))
    low, high = torch.tensor(draws, dtype=torch.float64).quantile(_tails(level)).tolist()
    return low, high


def half_width(values: Tensor) -> float:
    """Half-width of the 95 % interval of (1 + R,) values: the first is no resample."""
    return Z * float(values[1:].std())


def _tails(level: float) -> Tensor:
    return torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)


def _nearer(ours: Tensor, theirs: Tensor) -> float:
    """P(one of ours < one of theirs) + P(equal) / 2, over all pairs."""
    ordered = theirs.sort().values
    above = len(ordered) - torch.searchsorted(ordered, ours, right=True)
    below = torch.searchsorted(ordered, ours)
    wins = (above + len(ordered) - below).double().sum() / 2  # of equals, half
    return float(wins) / (len(ours) * len(theirs))


def _median(values: Tensor) -> float:
    return float(np.median(values.numpy()))  # torch's takes the lower of two middle values


def _pair(a: Tensor, b: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = _vectors("samples", a), _vectors("real", b)
    if first.shape[1] != second.shape[1]:
        raise InputError(
            "samples",
            f"have {first.shape[1]} dimensions, the real points {second.shape[1]}",
            "Compare points of one space",
        )
    return first, second


def _vectors(name: str, value: Tensor) -> NDArray[np.float64]:
    if not isinstance(value, Tensor) or value.dim() < 2 or len(value) == 0:
        raise InputError(name, "holds no vectors", "Give a tensor (n, ...) with n >= 1")
    flat = value.detach().reshape(len(value), -1).cpu().double()
    if not bool(flat.isfinite().all()):
        raise InputError(name, "has NaN or Inf", "Give finite values")
    vectors: NDArray[np.float64] = np.ascontiguousarray(flat.numpy())
    return vectors


def _sklearn() -> Callable[..., Any]:
    try:
        from sklearn.neighbors import NearestNeighbors
    except ImportError as error:
        raise InputError(
            "fidelity", f"needs scikit-learn ({error})", "Run `pip install 'reg-engine[eval]'`"
        ) from error
    found: Callable[..., Any] = NearestNeighbors
    return found
