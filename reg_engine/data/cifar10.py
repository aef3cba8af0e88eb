"""CIFAR-10 as arrays, from the caller's own files: pictures, .npz or the official plain bytes."""

from __future__ import annotations

import json
import os
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..storage.files import replacing
from ..storage.readers import Header, read_npz
from .cifar10_files import CLASSES, MEMBER, REMEDY, SIDE, Arrays, gather
from .mnist import KEYS

__all__ = ["CIFAR10", "CLASSES", "find_cifar10", "load_cifar10"]

# What a folder (--data, REG_ENGINE_DATA) is searched for, in this order.
NAMES = (
    "cifar10.npz",
    "cifar-10-binary.tar.gz",
    "cifar-10-batches-bin",
    "cifar10_jpeg.tar.gz",
    "cifar-10-python.tar.gz",  # pickles: found, and refused
    "cifar-10-batches-py",
)


@dataclass(frozen=True)
class CIFAR10:
    """Images (N, 32, 32, 3) uint8 RGB; labels (N,) int64, indices into CLASSES.

    `lossy`: the images came out of JPEG files. Their Frechet distances are comparable with each
    other, not with figures published for the original.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    lossy: bool = False


def find_cifar10(path: str | os.PathLike[str] | None = None) -> Path | None:
    """What load_cifar10 would read: a file or folder at `path`, or at REG_ENGINE_DATA; None: none.

    An explicit `path` that is no folder is returned as it is, whether it exists or not.
    """
    place = path if path is not None else os.environ.get("REG_ENGINE_DATA") or None
    if place is None:
        return None
    found = Path(place)
    if found.is_dir():
        inside = [found / name for name in NAMES if (found / name).exists()]
        found = inside[0] if inside else found
    if not found.is_dir():  # the environment may well point at other data
        return found if path is not None or found.name in NAMES else None
    known = (found / "train").is_dir() or any(MEMBER.match(each.name) for each in found.iterdir())
    return found if known else None


def load_cifar10(
    path: str | os.PathLike[str] | None = None, cache: str | os.PathLike[str] | None = None
) -> CIFAR10:
    """Load CIFAR-10 (Krizhevsky 2009).

    Args:
        path: a .tar.gz (or .tar) or a folder with train/CLASS/NAME.jpg (or .png) and test/...; the
            official "binary version" as .tar.gz or folder; an .npz; or a folder that holds one of
            them under its usual name. None: the environment variable REG_ENGINE_DATA.
        cache: an .npz to keep the decoded arrays in; used again while `path` stays as it is.

    Raises:
        InputError: nothing to read; pickled batches, which can run code; a picture that is not
            32x32 or damaged; a class that is unknown; arrays of another kind, shape or range.
    """
    source = find_cifar10(path)
    if source is None:
        where = "was given" if path is None else f"is in {os.fspath(path)!r}"
        raise InputError("data", f"no CIFAR-10 {where}", f"{REMEDY}, by --data or REG_ENGINE_DATA")
    if not source.exists():
        raise InputError("data", f"there is no {str(source)!r}", REMEDY)
    if source.suffix == ".npz":
        found = read_npz(source, KEYS, REMEDY, lambda kinds: _check_kinds(kinds, str(source)))
        return _checked(found, str(source), lossy=False)
    stamp = _stamp(source)
    if cache is not None and (kept := _cached(Path(cache), stamp)) is not None:
        return kept
    try:
        pictures = gather(source)
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise InputError("data", f"{str(source)!r} cannot be read ({error})", REMEDY) from error
    lossy = bool(pictures.pop("lossy"))
    data = _checked(pictures, str(source), lossy)
    if cache is not None:
        _keep(Path(cache), pictures, stamp, lossy)
    return data


def _check_kinds(arrays: Mapping[str, Header | NDArray[Any]], where: str) -> None:
    for part in ("train", "test"):
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
        fits = images.dtype == np.uint8 and images.ndim == 4
        if not fits or images.shape[1:] != (SIDE, SIDE, 3) or images.shape[0] == 0:
            text = f"x_{part} in {where!r} is {images.dtype} {images.shape}"
            raise InputError("data", text, REMEDY)
        if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
            text = f"y_{part} in {where!r} is {labels.dtype} {labels.shape}"
            raise InputError("data", f"{text} for {images.shape[0]} images", REMEDY)


def _checked(arrays: Arrays, where: str, lossy: bool) -> CIFAR10:
    _check_kinds(arrays, where)
    for part in ("train", "test"):
        low, high = int(arrays[f"y_{part}"].min()), int(arrays[f"y_{part}"].max())
        if low < 0 or high > 9:
            raise InputError("data", f"y_{part} in {where!r} has labels {low} to {high}", REMEDY)
    return CIFAR10(
        arrays["x_train"],
        arrays["y_train"].astype(np.int64),
        arrays["x_test"],
        arrays["y_test"].astype(np.int64),
        lossy,
    )


def _stamp(source: Path) -> str:
    """Names, sizes and times of what would be read: another source has another stamp."""
    folders = [source, *sorted(source.glob("*")), *sorted(source.glob("*/*"))]
    status = [(path, path.stat()) for path in folders if path == source or path.is_dir()]
    return json.dumps([(str(p.resolve()), s.st_size, s.st_mtime_ns) for p, s in status])


def _cached(cache: Path, stamp: str) -> CIFAR10 | None:
    """The arrays kept for this source; a damaged or foreign file counts as missing."""
    try:
        kept = read_npz(cache, (*KEYS, "stamp", "lossy"), REMEDY)
        if kept["stamp"].tobytes().decode() != stamp:
            return None
        return _checked(kept, str(cache), bool(kept["lossy"].all()))
    except ValueError:  # an InputError too
        return None


def _keep(cache: Path, arrays: Arrays, stamp: str, lossy: bool) -> None:
    """Write the cache, whole or not at all."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    text = np.frombuffer(stamp.encode(), np.uint8)
    kept = {**arrays, "stamp": text, "lossy": np.array(lossy)}
    with replacing(cache, "cache") as file:
        np.savez(file, **kept)  # type: ignore[arg-type]
