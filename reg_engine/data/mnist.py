"""MNIST as arrays, from the caller's own file or from OpenML."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..storage.readers import Header, read_npz

__all__ = ["KEYS", "MNIST", "load_mnist"]

KEYS = ("x_train", "y_train", "x_test", "y_test")
REMEDY = (
    "Give an mnist.npz with x_train, x_test (N, 28, 28) uint8 and y_train, y_test (N,) labels 0-9, "
    "or a folder that holds one"
)


@dataclass(frozen=True)
class MNIST:
    """Images (N, 28, 28) uint8, 0 = background; labels (N,) int64 in 0..9."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]


def load_mnist(path: str | os.PathLike[str] | None = None) -> MNIST:
    """Load MNIST.

    Args:
        path: mnist.npz, or a folder that holds it. None: the environment variable REG_ENGINE_DATA;
            without that, scikit-learn downloads `mnist_784` from OpenML and keeps it in its cache.

    Raises:
        InputError: no such file, not an npz, or contents of another kind, shape or range;
            without any path: scikit-learn is missing, or the download failed.
    """
    chosen = path if path is not None else os.environ.get("REG_ENGINE_DATA") or None
    if chosen is None:
        return _download()
    file = Path(chosen)
    if file.is_dir():
        file = file / "mnist.npz"
    if not file.is_file():
        raise InputError("data", f"there is no file {str(file)!r}", REMEDY)
    where = str(file)
    return _checked(read_npz(file, KEYS, REMEDY, lambda found: _check_kinds(found, where)), where)


def _check_kinds(arrays: Mapping[str, Header | NDArray[Any]], where: str) -> None:
    for part in ("train", "test"):
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (28, 28):
            raise InputError(
                "data", f"x_{part} in {where!r} is {images.dtype} {images.shape}", REMEDY
            )
        if images.shape[0] == 0:
            raise InputError("data", f"x_{part} in {where!r} is empty", REMEDY)
        if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
            raise InputError(
                "data",
                f"y_{part} in {where!r} is {labels.dtype} {labels.shape} for {images.shape[0]} "
                "images",
                REMEDY,
            )


def _checked(arrays: dict[str, NDArray[Any]], where: str) -> MNIST:
    _check_kinds(arrays, where)
    for part in ("train", "test"):
        low, high = int(arrays[f"y_{part}"].min()), int(arrays[f"y_{part}"].max())
        if low < 0 or high > 9:
            raise InputError("data", f"y_{part} in {where!r} has labels {low} to {high}", REMEDY)
    return MNIST(
        arrays["x_train"].astype(np.uint8, copy=False),
        arrays["y_train"].astype(np.int64),
        arrays["x_test"].astype(np.uint8, copy=False),
        arrays["y_test"].astype(np.int64),
    )


def _download() -> MNIST:
    own = "or set REG_ENGINE_DATA (or --data) to your own mnist.npz"
    try:
        from sklearn.datasets import fetch_openml
    except ImportError as error:
        raise InputError(
            "data",
            "no path was given and scikit-learn, which downloads MNIST, is not installed",
            f"Run `pip install scikit-learn`, {own}",
        ) from error
    try:
        images, labels = fetch_openml(
            "mnist_784", version=1, return_X_y=True, as_frame=False, parser="liac-arff"
        )
    except OSError as error:
        raise InputError(
            "data", f"downloading MNIST from OpenML failed ({error})", f"Try again, {own}"
        ) from error
    images = images.astype(np.uint8).reshape(-1, 28, 28)
    labels = labels.astype(np.int64)
    arrays = {
        "x_train": images[:60000],
        "y_train": labels[:60000],
        "x_test": images[60000:],
        "y_test": labels[60000:],
    }
    return _checked(arrays, "mnist_784 of OpenML")
