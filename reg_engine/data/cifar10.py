"""CIFAR-10 as arrays, from the caller's own files: pictures, .npz or the official plain bytes."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ..errors import InputError
from ..storage.files import replacing
from ..storage.readers import Header, open_regular, read_npz
from .mnist import KEYS

__all__ = ["CIFAR10", "CLASSES", "find_cifar10", "load_cifar10"]

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
SIDE = 32
# What a folder (--data, REG_ENGINE_DATA) is searched for, in this order.
NAMES = (
    "cifar10.npz",
    "cifar-10-binary.tar.gz",
    "cifar-10-batches-bin",
    "cifar10_jpeg.tar.gz",
    "cifar-10-python.tar.gz",  # pickles: found, and refused
    "cifar-10-batches-py",
)
PICTURE = re.compile(r"(?:^|.*/)(train|test)/([^/]+)/([^/]+\.(?:jpg|jpeg|png))$", re.IGNORECASE)
BATCH = re.compile(r"(?:^|.*/)(data_batch_\d+|test_batch)\.bin$")
PICKLE = re.compile(r"(?:^|.*/)(data_batch_\d+|test_batch|batches\.meta)$")
MEMBER = re.compile(f"{BATCH.pattern}|{PICKLE.pattern}")
UNPACKED = 100  # bytes of an archive for one of its file, at most
LARGEST = {"picture": 1 << 20, "batch": 10_000 * 3073}  # bytes of one member
REMEDY = (
    "Give a .tar.gz or a folder with train/CLASS/*.jpg and test/CLASS/*.jpg (or .png), the "
    "official cifar-10-binary.tar.gz, or an .npz with x_train, x_test (N, 32, 32, 3) uint8 and "
    "y_train, y_test (N,) labels 0-9"
)

Arrays = dict[str, NDArray[Any]]


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
        pictures = _gather(_folder(source) if source.is_dir() else _tar(source), str(source))
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise InputError("data", f"{str(source)!r} cannot be read ({error})", REMEDY) from error
    lossy = bool(pictures.pop("lossy"))
    data = _checked(pictures, str(source), lossy)
    if cache is not None:
        _keep(Path(cache), pictures, stamp, lossy)
    return data


# Members of an archive or a folder: (name, a function that reads at most `limit` bytes of it)

Member = tuple[str, Callable[[int], bytes]]


class _Bounded:
    """What tarfile reads from; an error once it gives far more than a file of `size` bytes may."""

    def __init__(self, file: Any, size: int) -> None:
        self.file, self.left = file, UNPACKED * size + (1 << 20)

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise tarfile.ReadError("it unpacks to far more than pictures do")
        return data


def _tar(path: Path) -> Iterator[Member]:
    """Plain files of a tar, read in memory: nothing is extracted, links are not followed."""
    with open_regular(path) as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream = _Bounded(gzip.GzipFile(fileobj=file) if packed else file, path.stat().st_size)
        with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
            for member in archive:
                if member.isreg():
                    content = archive.extractfile(member)
                    assert content is not None  # a regular file
                    yield member.name, content.read


def _folder(path: Path) -> Iterator[Member]:
    for file in sorted(path.rglob("*")):
        if file.is_file():

            def read(limit: int, file: Path = file) -> bytes:
                with file.open("rb") as opened:
                    return opened.read(limit)

            yield file.relative_to(path).as_posix(), read


def _gather(members: Iterator[Member], where: str) -> Arrays:
    """Arrays of pictures or binary batches, in an order that is the names' own."""
    found: dict[str, list[tuple[tuple[str, ...], NDArray[np.uint8], NDArray[np.int64]]]]
    found = {"train": [], "test": []}
    lossy, pickles = False, False
    for name, read in members:
        if match := PICTURE.match(name):
            part, kind, file = match.groups()
            image = _picture(read(LARGEST["picture"] + 1), f"{name} in {where!r}")
            label = np.array([_label(kind, where)])
            found[part.lower()].append(((kind, file), image[None], label))
            lossy |= not file.lower().endswith(".png")
        elif match := BATCH.match(name):
            images, labels = _batch(read(LARGEST["batch"] + 1), f"{name} in {where!r}")
            part = "test" if match[1] == "test_batch" else "train"
            found[part].append(((match[1],), images, labels))
        pickles |= PICKLE.match(name) is not None
    if pickles and not found["train"]:
        raise InputError(
            "data",
            f"{where!r} holds pickled batches, and reading a pickle can run code",
            "Give the official cifar-10-binary.tar.gz (the same images as plain bytes) instead",
        )
    arrays: Arrays = {"lossy": np.array(lossy)}
    for part, items in found.items():
        if not items:
            raise InputError("data", f"{where!r} has no {part} images", REMEDY)
        items.sort(key=lambda item: item[0])
        arrays[f"x_{part}"] = np.concatenate([images for _, images, _ in items])
        arrays[f"y_{part}"] = np.concatenate([labels for _, _, labels in items])
    return arrays


def _picture(content: bytes, where: str) -> NDArray[np.uint8]:
    """(32, 32, 3) uint8 of one JPEG or PNG file."""
    if len(content) > LARGEST["picture"]:
        raise InputError("data", f"{where} is larger than any 32x32 picture", REMEDY)
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
            if image.size != (SIDE, SIDE):
                raise InputError("data", f"{where} is {image.size[0]}x{image.size[1]}", REMEDY)
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        # SyntaxError is what Pillow raises for a broken PNG
        raise InputError("data", f"{where} is no readable picture ({error})", REMEDY) from error


def _label(kind: str, where: str) -> int:
    if kind not in CLASSES:
        raise InputError(
            "data", f"{where!r} has a class {kind!r}", f"The classes are {', '.join(CLASSES)}"
        )
    return CLASSES.index(kind)


def _batch(content: bytes, where: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The binary version: records of 1 label byte and 3072 pixels, channel by channel."""
    if len(content) > LARGEST["batch"] or not content or len(content) % 3073:
        raise InputError("data", f"{where} is no batch of 3073-byte records", REMEDY)
    records = np.frombuffer(content, np.uint8).reshape(-1, 3073)
    images = records[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0].astype(np.int64)


# Arrays


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
