"""FID, inception score, KID, precision and recall of vectors, by conventions that have names."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..fidelity import half_width, precision_recall
from ..metrics import Frechet
from ..values import as_int, store

__all__ = ["METRICS", "Conventions", "frechet_bars", "inception_score", "kid", "neighbours"]

METRICS = ("fid", "is", "kid", "pr")


@dataclass(frozen=True)
class Conventions:
    """The numbers that a score depends on beside its images; all stand in the result.

    Args:
        splits: of the inception score; theirs are 10.
        subsets, subset_size: of KID: how many, and images of each set in one; torch-fidelity's are
            100 of 1000.
        k: neighbours that make a ball of precision and recall; 3.
        bootstrap: resamples of the images for an error bar of FID; 0: none.
        seed: of shuffling, subsets and resamples; torch-fidelity's is 2020.

    Raises:
        InputError: a number out of range.
    """

    splits: int = 10
    subsets: int = 100
    subset_size: int = 1000
    k: int = 3
    bootstrap: int = 0
    seed: int = 2020

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = {"bootstrap": 0, "seed": 0, "subset_size": 2}.get(name, 1)
            store(self, **{name: as_int(name, value, least)})
        if self.bootstrap == 1 or self.seed >= 2**32:
            name = "bootstrap" if self.bootstrap == 1 else "seed"
            raise InputError(name, f"is {getattr(self, name)}", "Give 0 or 2 or more, below 2^32")


def inception_score(logits: Tensor, how: Conventions) -> dict[str, Any]:
    """exp E KL(p(y|x) || p(y)) over splits of the shuffled images (Salimans et al. 2016).

    As torch-fidelity: images are shuffled by numpy's RandomState(seed), cut into `splits` parts as
    equal as they can be, and the deviation is the population's over the parts.

    Args:
        logits: (N, C), N >= splits.

    Raises:
        InputError: fewer images than splits.
    """
    count = len(logits)
    if count < how.splits:
        raise InputError("splits", f"are {how.splits} of {count} images", "Give fewer")
    order = torch.from_numpy(np.random.RandomState(how.seed).permutation(count))
    scores = []
    for part in range(how.splits):
        rows = order[part * count // how.splits : (part + 1) * count // how.splits]
        log_p = logits[rows].double().log_softmax(1)
        p = log_p.exp()
        log_mean = p.mean(0).clamp(min=torch.finfo(torch.float64).tiny).log()
        scores.append(float((p * (log_p - log_mean)).sum(1).mean().exp()))
    return {
        "mean": float(np.mean(scores)),
        "std": float(np.std(scores)),
        "splits": how.splits,
        "shuffled": f"RandomState({how.seed})",
        "std_over": "splits, population",
    }


def kid(samples: Tensor, reference: Tensor, how: Conventions) -> dict[str, Any]:
    """The kernel distance (Binkowski et al. 2018): the unbiased estimate of the squared MMD with
    the kernel (x.y / F + 1)^3, over subsets drawn without replacement.

    As torch-fidelity: each subset takes `subset_size` samples, then as many of the reference, by
    numpy's RandomState(seed).choice; the deviation is the population's over the subsets.

    Args:
        samples: (N, F); reference: (M, F); N and M >= subset_size.

    Raises:
        InputError: fewer images than a subset takes.
    """
    least = min(len(samples), len(reference))
    if least < how.subset_size:
        problem = f"is {how.subset_size} for {least} images"
        raise InputError("subset_size", problem, "Give fewer, or more images")
    draw = np.random.RandomState(how.seed)
    values = []
    for _ in range(how.subsets):
        x, y = (
            each[torch.from_numpy(draw.choice(len(each), how.subset_size, replace=False))].double()
            for each in (samples, reference)
        )
        values.append(_mmd(x, y))
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values)),
        "subsets": how.subsets,
        "subset_size": how.subset_size,
        "kernel": "(x.y / F + 1)^3, unbiased",
        "drawn": f"RandomState({how.seed})",
    }


def _mmd(x: Tensor, y: Tensor) -> float:
    """Unbiased: without a set's pairs of a vector with itself (Gretton et al. 2012, Eq. 3)."""
    count, width = x.shape
    own = 0.0
    for each in (x, y):
        kernel = (each @ each.T / width + 1) ** 3
        own += float(kernel.sum() - kernel.trace()) / (count * (count - 1))
    return own - 2 * float(((x @ y.T / width + 1) ** 3).mean())


def neighbours(samples: Tensor, reference: Tensor, how: Conventions) -> dict[str, Any]:
    """fidelity.precision_recall, and what it was asked."""
    precision, recall = precision_recall(samples, reference, how.k)
    sizes = {"images": len(samples), "reference_images": len(reference)}
    return {"precision": precision, "recall": recall, "k": how.k, **sizes}


def frechet_bars(samples: Tensor, reference: Frechet, how: Conventions) -> dict[str, Any]:
    """The half-width of a 95 % interval of FID: the images are resampled (Efron 1979), the
    reference stays.

    Args:
        samples: (N, F), N >= 2.
    """
    generator = torch.Generator().manual_seed(how.seed)
    count = len(samples)
    drawn = torch.randint(count, (how.bootstrap, count), generator=generator)
    values = reference.resampled(samples, torch.cat([torch.arange(count)[None], drawn]))
    return {"error": half_width(values), "bootstrap": how.bootstrap, "error_is": "95 % half-width"}
