"""Mean and covariance of feature vectors, block by block; and the .npz files that hold them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..storage.files import replacing
from ..storage.readers import Header, read_npz, refusing
from .network import Network
from .pickled import read_pickled

__all__ = ["Moments", "Statistics", "described", "load_statistics"]

REMEDY = "Give an .npz with mu (F,) and sigma (F, F), as --write-stats, EDM and ADM write it"
WIDEST = 1 << 14  # features
NOTE = "reg_engine"  # the key of our own fields, JSON
SKEW = 1e-6  # of sigma's largest value, by which it may differ from its transpose


@dataclass(frozen=True)
class Moments:
    """Count, mean and centred products of some vectors; those of two sets add up.

    Each block is centred by itself and merged by its own mean, so that nothing cancels (Chan, Golub
    and LeVeque 1983). The order of the blocks changes the last digits only.

    Args:
        count: vectors.
        mean: (F,) float64.
        products: (F, F) float64, the sum of (x - mean)(x - mean)^T.
    """

    count: int
    mean: Tensor
    products: Tensor

    @classmethod
    def of(cls, vectors: Tensor) -> Moments:
        """Those of (n, F) vectors, n >= 1, summed in float64."""
        values = vectors.double()
        mean = values.mean(0)
        values = values - mean
        return cls(len(values), mean, values.T @ values)

    def __add__(self, other: Moments) -> Moments:
        """Those of both sets together."""
        count = self.count + other.count
        apart = other.mean - self.mean
        products = self.products + other.products
        products.addr_(apart, apart, alpha=self.count * other.count / count)
        return Moments(count, self.mean + apart * (other.count / count), products)

    def covariance(self) -> Tensor:
        """The unbiased covariance (F, F).

        Raises:
            InputError: fewer than two vectors have none.
        """
        if self.count < 2:
            problem = f"are {self.count}, too few for a covariance"
            raise InputError("images", problem, "Give 2 or more; papers take 50,000")
        return self.products / (self.count - 1)


@dataclass(frozen=True)
class Statistics:
    """What a Frechet distance needs of a set of images.

    Args:
        mean: (F,) float64. covariance: (F, F) float64.
        note: how they came about: see `described`; empty where the file does not say.
        name: what people call them.
    """

    mean: Tensor
    covariance: Tensor
    note: Mapping[str, Any]
    name: str

    def save(self, path: Path, argument: str = "out") -> None:
        """Write mu, sigma and the note as .npz, whole or not at all.

        Raises:
            InputError: it cannot be written.
        """
        text = np.frombuffer(json.dumps(dict(self.note)).encode(), np.uint8)
        arrays = {"mu": self.mean.numpy(), "sigma": self.covariance.numpy(), NOTE: text}
        with replacing(path, argument) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    def check(self, network: Network) -> None:
        """Refuse statistics of another feature network, or of images resized otherwise.

        Raises:
            InputError: they are such.
        """
        said, own = self.note.get("features"), described(network)
        if not isinstance(said, Mapping):
            return  # a file of others; its width is compared
        for key in ("fingerprint", "resize"):
            if said.get(key) != own[key]:
                problem = (
                    f"{self.name} is of {said.get('name')} (resize {_words(said.get('resize'))}), "
                    f"the images are read by {own['name']} (resize {_words(own['resize'])})"
                )
                if key == "fingerprint" and said.get("name") == own["name"]:
                    problem += ", whose weights are others"
                raise InputError("stats", problem, "Make them again with these --features")

    def check_width(self, width: int) -> None:
        """InputError if the feature network makes vectors of another width."""
        if len(self.mean) != width:
            problem = f"{self.name} has {len(self.mean)} features, the network makes {width}"
            raise InputError("stats", problem, "Give statistics of the same feature network")


def described(network: Network) -> dict[str, Any]:
    """The feature network as results and statistics say it."""
    resize = network.resize
    return {
        "name": network.name,
        "fingerprint": network.fingerprint,
        "resize": None if resize is None else {"size": resize.size, "filter": resize.filter},
    }


def _words(resize: Any) -> str:
    fits = isinstance(resize, Mapping) and {"size", "filter"} <= set(resize)
    return f"{resize['size']}:{resize['filter']}" if fits else "none"


def load_statistics(path: str | os.PathLike[str], space: str = "fid") -> Statistics:
    """Statistics of a file; nothing of it is run.

    Args:
        path: an .npz with `mu` and `sigma` as EDM's, ADM's and pytorch-fid's files have them, and
            the note that --write-stats adds; or a .pkl of EDM2.
        space: which of a .pkl's: `fid` or `fd_dinov2`.

    Raises:
        InputError: no such file; other shapes; values that are no covariance's.
    """
    where, note = repr(str(path)), b"{}"
    if Path(path).suffix == ".pkl":
        mean, covariance = read_pickled(path, space)
        _check_shapes(mean, covariance, where)
    else:
        arrays = read_npz(path, ("mu", "sigma"), REMEDY, _check(where), "stats", (NOTE,))
        mean, covariance = (torch.from_numpy(arrays[key]) for key in ("mu", "sigma"))
        note = arrays[NOTE].tobytes() if NOTE in arrays else note
    mean, covariance = mean.double(), covariance.double()
    if not bool(mean.isfinite().all() and covariance.isfinite().all()):
        raise InputError("stats", f"{where} holds NaN or Inf", REMEDY)
    apart = float((covariance - covariance.T).abs().max())
    if apart > SKEW * float(covariance.abs().max()) or float(covariance.diagonal().min()) < 0:
        raise InputError("stats", f"sigma in {where} is no covariance", REMEDY)
    with refusing("stats", f"the note in {where} is damaged", REMEDY):
        said = json.loads(note)
        if not isinstance(said, dict):
            raise ValueError("it is no dict")
    return Statistics(mean, (covariance + covariance.T) / 2, said, str(path))


def _check(where: str) -> Callable[[Mapping[str, Header]], None]:
    """Of the headers of an .npz, before values are read."""

    def check(found: Mapping[str, Header]) -> None:
        _check_shapes(found["mu"], found["sigma"], where)
        if NOTE in found and (found[NOTE].dtype != np.uint8 or found[NOTE].ndim != 1):
            raise InputError("stats", f"the note in {where} is damaged", REMEDY)

    return check


def _check_shapes(mean: Header | Tensor, covariance: Header | Tensor, where: str) -> None:
    shape = tuple(mean.shape)
    square = len(shape) == 1 and tuple(covariance.shape) == shape * 2
    floats = all(
        each.dtype in (np.float32, np.float64, torch.float32, torch.float64)
        for each in (mean, covariance)
    )
    if not (square and floats and 0 < shape[0] <= WIDEST):
        both = " and ".join(f"{each.dtype} {tuple(each.shape)}" for each in (mean, covariance))
        raise InputError("stats", f"mu and sigma in {where} are {both}", REMEDY)
