"""What a folder or an archive of CIFAR-10 holds, as arrays: pictures or the official bytes."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ..errors import InputError
from ..storage.readers import open_regular

__all__ = ["CLASSES", "MEMBER", "REMEDY", "SIDE", "Arrays", "gather"]

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

# (name, a function that reads at most `limit` bytes of it)
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


def gather(source: Path) -> Arrays:
    """Arrays of the pictures or binary batches in a folder or a tar, in an order that is the names'
    own: x_train, y_train, x_test, y_test, and `lossy`.

    Raises:
        InputError: pickles, or something that is no picture and no batch.
        OSError, EOFError, tarfile.TarError, zlib.error: it cannot be read.
    """
    members, where = _folder(source) if source.is_dir() else _tar(source), str(source)
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
