"""How good a cloud of samples of one class is, in the fractal experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...fidelity import bootstrap, memorisation, nearest_distances, precision_recall
from ...oracles import GaussianMixture, energy_distance
from .models import Data, Models, log_posterior

UNIT = 0.01  # distances are given in hundredths; the data have a deviation of 0.57
NEIGHBOURS = 3  # of precision and recall
COMPARED = 2000  # real points for energy distances and memorisation


def thinned(points: Tensor, log_keep: Tensor, generator: torch.Generator) -> Tensor:
    """Draws of p(x) k(x) from draws of p(x) (N, d), where log_keep (N,) is log k(x) <= 0.

    A point is kept with probability k(x) over the largest k among them: exact rejection sampling,
    but for the bound, which is that of the points at hand.
    """
    uniform = torch.rand(len(points), dtype=torch.float64, generator=generator)
    return points[uniform.log() < log_keep - log_keep.max()]


def class_target(
    data: Data, models: Models, method: str, scale: float, label: int, generator: torch.Generator
) -> Tensor:
    """Real points thinned to the distribution that guidance aims at.

    CFG: p(x_0|y) p(y|x_0)^(scale - 1), with the exact posterior. Classifier guidance:
    p(x_0) p_phi(y|x_0)^scale, with the classifier's own opinion of clean data.
    """
    if method == "cfg":
        points = data.real[label]
        log_keep = (scale - 1) * data.real_log_posterior[label]
    else:
        points = data.real.flatten(0, 1)
        log_keep = scale * models.logits(points).double().log_softmax(-1)[:, label]
    found = thinned(points, log_keep, generator)
    return found[torch.randperm(len(found), generator=generator)[:COMPARED]]


def scores(samples: Tensor, data: Data, label: int, target: Tensor | None) -> dict[str, float]:
    """Measures of samples (n, 2) of a class; distances in UNIT, energy distances in 1.

    distance, low, high: mean distance to the nearest real point of the class, 95 % interval.
    precision, recall: against n real points of the class, k = 3.
    energy, energy_target: to real points of the class, and to what guidance aims at.
    own_class: share that p(y|x_0) of the mixture gives to the class.
    nearer, train_median, heldout_median: see fidelity.Memorisation.
    """
    real = data.real[label]
    distances = nearest_distances(samples, real) / UNIT
    low, high = bootstrap(distances, 500)
    precision, recall = precision_recall(samples, real[: len(samples)], NEIGHBOURS)
    memory = memorisation(samples, data.train[label], real[:COMPARED], count=1)
    found = {
        "distance": float(distances.mean()),
        "low": low,
        "high": high,
        "precision": precision,
        "recall": recall,
        "energy": energy_distance(samples, real[:COMPARED]),
        "own_class": own_class(data.mixture, samples, label),
        "nearer": memory.nearer,
        "train_median": memory.samples_median / UNIT,
        "heldout_median": memory.heldout_median / UNIT,
    }
    if target is not None:
        found["energy_target"] = energy_distance(samples, target)
    return found


def own_class(mixture: GaussianMixture, x: Tensor, label: int) -> float:
    """Share of points (n, 2) whose more probable class is `label`."""
    return float(log_posterior(mixture, x).argmax(1).eq(label).double().mean())


def paired_ratio(
    over: Tensor, under: Tensor, data: Data, generator: torch.Generator, count: int = 500
) -> dict[str, float]:
    """Distance of `over` by that of `under`, both (2, n, 2), made from the same n samples a class.

    Distances are averaged over the classes; low, high: 95 % interval, resampling the samples, of
    which the two clouds are images, in pairs.
    """
    both = torch.stack(
        [
            torch.stack([nearest_distances(cloud[y], data.real[y]) for y in (0, 1)])
            for cloud in (over, under)
        ]
    )

    def ratio(distances: Tensor) -> float:
        a, b = distances.mean((1, 2)).tolist()
        return float(a / b)

    drawn = torch.randint(both.shape[2], (count, both.shape[2]), generator=generator)
    found = torch.tensor([ratio(both[:, :, rows]) for rows in drawn], dtype=torch.float64)
    low, high = found.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return {"ratio": ratio(both), "low": low, "high": high}


def floors(data: Data, count: int) -> list[dict[str, float]]:
    """What `count` fresh real points of each class score: no sampler can be asked for more."""
    return [scores(data.fresh[y, :count], data, y, data.real[y, -COMPARED:]) for y in (0, 1)]


def mean_of(classes: Sequence[Mapping[str, float]], key: str) -> float:
    """A measure, averaged over the classes."""
    return sum(each[key] for each in classes) / len(classes)
