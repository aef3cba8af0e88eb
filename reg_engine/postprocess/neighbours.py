"""The nearest real samples of generated ones, by FAISS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError
from ..schedules.base import positive_int

__all__ = ["Features", "Neighbours"]

BLOCK = 2**24  # differences held at a time

Features = Callable[[Tensor], Tensor]


class Neighbours:
    """Exact nearest neighbours among real samples, in pixels or in any features.

    FAISS (IndexFlatL2) finds them; their distances are then computed again by differences, because
    FAISS takes them from a matrix product, which loses the small ones. Nothing here is random.

    Args:
        real: (N, ...) finite samples.
        labels: (N,) integers, for searches within a class; None: there are none.
        features: (B, ...) samples -> (B, d) vectors; None = the values themselves, flattened. They
            are compared as float32.
        batch_size: samples that `features` gets at a time.

    Raises:
        InputError: FAISS is missing; empty or non-finite samples or features; labels of another
            length.
    """

    def __init__(
        self,
        real: Tensor,
        labels: Tensor | None = None,
        features: Features | None = None,
        *,
        batch_size: int = 500,
    ) -> None:
        self._faiss = _import_faiss()
        self.features, self.batch_size = features, positive_int("batch_size", batch_size)
        self._real = self._vectors("real", real)
        self.size = len(self._real)
        self.labels = None if labels is None else _labels("real_labels", labels, self.size)
        self._indices: dict[int | None, tuple[Any, NDArray[np.int64]]] = {}

    def search(
        self, samples: Tensor, k: int, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The k nearest real samples of each of `samples`, nearest first.

        Args:
            samples: (n, ...) of the real samples' shape.
            k: neighbours >= 1.
            labels: (n,): search among the real samples of the same label; None: among all.

        Returns:
            distances (n, k) float32 >= 0 in the space of the features, and indices (n, k) int64
            into `real`; on the CPU. Equal distances are ordered by index.

        Raises:
            InputError: k above the number of real samples, or of those of a class; labels without
                real labels; samples of another size.
        """
        positive_int("k", k)
        queries = self._vectors("samples", samples)
        if queries.shape[1] != self._real.shape[1]:
            raise InputError(
                "samples",
                f"have {queries.shape[1]} values each, the real samples {self._real.shape[1]}",
                "Compare samples of one space",
            )
        distances = np.empty((len(queries), k), dtype=np.float32)
        indices = np.empty((len(queries), k), dtype=np.int64)
        for label, rows in self._groups(labels, len(queries)):
            distances[rows], indices[rows] = self._among(label, queries[rows], k)
        return torch.from_numpy(distances), torch.from_numpy(indices)

    def _groups(
        self, labels: Tensor | None, count: int
    ) -> list[tuple[int | None, slice | NDArray[np.int64]]]:
        if labels is None:
            return [(None, slice(None))]
        if self.labels is None:
            raise InputError(
                "labels", "are given, but the real samples have none", "Give Neighbours labels too"
            )
        own = _labels("labels", labels, count)
        return [(int(label), np.flatnonzero(own == label)) for label in np.unique(own)]

    def _among(
        self, label: int | None, queries: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        index, members = self._index(label)
        if k > len(members):
            where = "there are" if label is None else f"class {label} has"
            raise InputError(
                "k",
                f"is {k}, but {where} {len(members)} real samples",
                "Give a smaller k or more real samples",
            )
        found = np.sort(members[index.search(queries, k)[1]], axis=1)
        distances = np.empty(found.shape, dtype=np.float32)
        rows = max(1, BLOCK // (k * queries.shape[1]))
        for start in range(0, len(queries), rows):
            part = slice(start, start + rows)
            gaps = self._real[found[part]] - queries[part, None]
            distances[part] = np.linalg.norm(gaps, axis=2)
        order = np.argsort(distances, axis=1, kind="stable")
        return np.take_along_axis(distances, order, 1), np.take_along_axis(found, order, 1)

    def _index(self, label: int | None) -> tuple[Any, NDArray[np.int64]]:
        """FAISS's index of one class (None: of all), and its members' places in `real`."""
        if label not in self._indices:
            if label is None:
                members = np.arange(self.size)
            else:
                members = np.flatnonzero(self.labels == label)
            index = self._faiss.IndexFlatL2(self._real.shape[1])
            index.add(np.ascontiguousarray(self._real[members]))
            self._indices[label] = index, members
        return self._indices[label]

    def _vectors(self, name: str, samples: Tensor) -> NDArray[np.float32]:
        """(n, d) float32 on the CPU."""
        if not isinstance(samples, Tensor) or samples.dim() < 2 or len(samples) == 0:
            raise InputError(name, "holds no samples", "Give a tensor (n, ...) with n >= 1")
        if self.features is None:
            vectors = samples.detach()
        else:
            with torch.no_grad():
                parts = [self.features(part).cpu() for part in samples.split(self.batch_size)]
            vectors = torch.cat(parts)
            if len(vectors) != len(samples) or vectors.dim() < 2:
                raise InputError(
                    "features",
                    f"gave {tuple(vectors.shape)} for {len(samples)} samples",
                    "Return one vector for each",
                )
        flat = vectors.reshape(len(samples), -1).to("cpu", torch.float32)
        if not bool(flat.isfinite().all()):
            what = name if self.features is None else f"features of {name}"
            raise InputError(what, "have NaN or Inf", "Give finite samples")
        array: NDArray[np.float32] = np.ascontiguousarray(flat.numpy())
        return array


def _labels(name: str, labels: Tensor, count: int) -> NDArray[np.int64]:
    values = torch.as_tensor(labels).detach().cpu()
    if values.shape != (count,) or values.is_floating_point():
        raise InputError(
            name,
            f"are {values.dtype} {tuple(values.shape)} for {count} samples",
            "Give one integer for each",
        )
    array: NDArray[np.int64] = values.long().numpy()
    return array


def _import_faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise InputError(
            "neighbours", f"need faiss ({error})", "Run `pip install 'reg-engine[postprocess]'`"
        ) from error
    return faiss
