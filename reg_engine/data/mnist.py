"""MNIST and Fashion-MNIST as arrays, from the caller's own file or from OpenML."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, choice
from ..storage.readers import Header, read_npz

__all__ = ["DATA_SETS", "KEYS", "MNIST", "DataSet", "load_data_set", "load_fashion", "load_mnist"]

KEYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class MNIST:
    """Images (N, 28, 28) uint8, 0 = background; labels (N,) int64 in 0..9."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]

    def first(self, train: int | None, test: int | None) -> MNIST:
        """The first images of each set, so many; None = all."""
        return MNIST(
            self.train_images[:train],
            self.train_labels[:train],
            self.test_images[:test],
            self.test_labels[:test],
        )


@dataclass(frozen=True)
class DataSet:
    """Where images of MNIST's kind come from.

    Args:
        title: as people call it.
        file: the .npz that holds it, as it is called in a folder.
        openml: its name on OpenML, version 1.
        classes: the names of the labels 0 to 9.
    """

    title: str
    file: str
    openml: str
    classes: tuple[str, ...]

    @property
    def remedy(self) -> str:
        """What to give instead of a file that is not this data set."""
        return (
            f"Give an {self.file} with x_train, x_test (N, 28, 28) uint8 and y_train, y_test (N,) "
            "labels 0-9, or a folder that holds one"
        )


DATA_SETS = {
    "mnist": DataSet("MNIST", "mnist.npz", "mnist_784", tuple("0123456789")),
    "fashion": DataSet(
        "Fashion-MNIST",
        "fashion_mnist.npz",
        "Fashion-MNIST",
        (
            "T-shirt",
            "trouser",
            "pullover",
            "dress",
            "coat",
            "sandal",
            "shirt",
            "sneaker",
            "bag",
            "ankle boot",
        ),
    ),
}


def load_mnist(path: str | os.PathLike[str] | None = None) -> MNIST:
    """Load MNIST.

    Args:
        path: mnist.npz, or a folder that holds it. None: the environment variable REG_ENGINE_DATA;
            without that, scikit-learn downloads `mnist_784` from OpenML and keeps it in its cache.

    Raises:
        InputError: no such file, not an npz, or contents of another kind, shape or range; a file
            that is called as another data set is; without any path: scikit-learn is missing, or
            the download failed.
    """
    return load_data_set("mnist", path)


def load_fashion(path: str | os.PathLike[str] | None = None) -> MNIST:
    """Load Fashion-MNIST, which has MNIST's shapes and labels (0 T-shirt ... 9 ankle boot).

    Args:
        path: as load_mnist, of fashion_mnist.npz and OpenML's `Fashion-MNIST`.

    Raises:
        InputError: as load_mnist.
    """
    return load_data_set("fashion", path)


def load_data_set(name: str, path: str | os.PathLike[str] | None = None) -> MNIST:
    """load_mnist or load_fashion, by their key in DATA_SETS."""
    data_set = DATA_SETS[choice("data_set", name, DATA_SETS)]
    chosen = path if path is not None else os.environ.get("REG_ENGINE_DATA") or None
    if chosen is None:
        return _download(data_set)
    file, remedy = Path(chosen), data_set.remedy
    if file.is_dir():
        file = file / data_set.file
    if not file.is_file():
        raise InputError("data", f"there is no file {str(file)!r}", remedy)
    where = str(file)
    if others := [
        other for other in DATA_SETS.values() if file.name == other.file != data_set.file
    ]:
        # the arrays cannot tell: both have the same shapes and labels
        raise InputError("data", f"{where!r} is {others[0].title}, not {data_set.title}", remedy)
    arrays = read_npz(file, KEYS, remedy, lambda found: _check_kinds(found, where, remedy))
    return _checked(arrays, where, remedy)


def _check_kinds(arrays: Mapping[str, Header | NDArray[Any]], where: str, remedy: str) -> None:
    for part in ("train", "test"):
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (28, 28):
            raise InputError(
                "data", f"x_{part} in {where!r} is {images.dtype} {images.shape}", remedy
            )
        if images.shape[0] == 0:
            raise InputError("data", f"x_{part} in {where!r} is empty", remedy)
        if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
            raise InputError(
                "data",
                f"y_{part} in {where!r} is {labels.dtype} {labels.shape} for {images.shape[0]} "
                "images",
                remedy,
            )


def _checked(arrays: dict[str, NDArray[Any]], where: str, remedy: str) -> MNIST:
    _check_kinds(arrays, where, remedy)
    for part in ("train", "test"):
        low, high = int(arrays[f"y_{part}"].min()), int(arrays[f"y_{part}"].max())
        if low < 0 or high > 9:
            raise InputError("data", f"y_{part} in {where!r} has labels {low} to {high}", remedy)
    return MNIST(
        arrays["x_train"].astype(np.uint8, copy=False),
        arrays["y_train"].astype(np.int64),
        arrays["x_test"].astype(np.uint8, copy=False),
        arrays["y_test"].astype(np.int64),
    )


def _download(data_set: DataSet) -> MNIST:
    title = data_set.title
    own = f"or set REG_ENGINE_DATA (or --data) to your own {data_set.file}"
    try:
        from sklearn.datasets import fetch_openml
    except ImportError as error:
        raise InputError(
            "data",
            f"no path was given and scikit-learn, which downloads {title}, is not installed",
            f"Run `pip install scikit-learn`, {own}",
        ) from error
    try:
        images, labels = fetch_openml(
            data_set.openml, version=1, return_X_y=True, as_frame=False, parser="liac-arff"
        )
    except OSError as error:
        raise InputError(
            "data",
            f"downloading {title} from OpenML failed ({error})",
            f"Try again, {own}",
        ) from error
    images = images.astype(np.uint8).reshape(-1, 28, 28)
    labels = labels.astype(np.int64)
    arrays = {
        "x_train": images[:60000],
        "y_train": labels[:60000],
        "x_test": images[60000:],
        "y_test": labels[60000:],
    }
    return _checked(arrays, f"{data_set.openml} of OpenML", data_set.remedy)
