"""Picture files by number: of a folder and its subfolders, and those inside of .tar shards."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..errors import InputError
from ..storage.digest import digest
from ..storage.readers import open_regular, refusing
from .source import Part

__all__ = ["FORMATS", "Entry", "Pictures", "listed"]

FORMATS = ("PNG", "JPEG", "WEBP")
ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # 8 bits a channel at most
LARGEST = 1 << 28  # bytes of a file
PIXELS = 1 << 26  # of a picture
SHOWN = 5  # names in a message
REMEDY = "Give a folder of PNG, JPEG or WebP files, or of .tar shards that hold such files"


class Entry(NamedTuple):
    """Where one picture's bytes lie."""

    name: str  # relative to the folder; of a shard SHARD.tar/NAME
    path: Path
    offset: int
    size: int  # bytes
    time: int  # when the file was changed, ns


def listed(place: Path) -> list[Entry]:
    """The pictures of a folder and its subfolders, or of a .tar, by name; of shards in their order.

    A .tar is what WebDataset writes: a plain archive whose members are found once by their headers
    and then read where they lie. Nothing is extracted.

    Raises:
        InputError: a link (where it leads, nobody has said); a damaged .tar; no picture.
    """
    found: list[Entry] = []
    with refusing("images", f"{str(place)!r} cannot be listed", REMEDY):
        files = [(place.name, place)] if place.suffix == ".tar" else sorted(_walk(place))
        for name, path in files:
            if path.suffix.lower() == ".tar":
                prefix = f"{name}/" if len(files) > 1 else ""
                found += [each._replace(name=prefix + each.name) for each in _members(path)]
            else:
                status = path.stat()
                found.append(Entry(name, path, 0, status.st_size, status.st_mtime_ns))
    if not found:
        raise InputError("images", f"there is no picture in {str(place)!r}", REMEDY)
    return found


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """(name, path) of the pictures and shards below a folder."""
    for place, folders, files in os.walk(folder, onerror=_fail):
        for name in (*folders, *files):
            path = Path(place, name)
            wanted = path.suffix.lower() in (*ENDINGS, ".tar")
            if path.is_symlink() and (wanted or name in folders):
                raise InputError("images", f"{str(path)!r} is a link", "Put the files there")
            if wanted and name not in folders:
                yield path.relative_to(folder).as_posix(), path


def _fail(error: OSError) -> None:
    raise error


def _members(path: Path) -> Iterator[Entry]:
    """Plain picture files of a .tar, in its order."""
    with open_regular(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        status = os.fstat(file.fileno())
        for member in archive:
            if not member.isreg() or not member.name.lower().endswith(ENDINGS):
                continue
            end = member.offset_data + member.size
            if member.issparse() or end > status.st_size:
                raise tarfile.ReadError(f"{member.name} is sparse, or longer than the archive")
            yield Entry(member.name, path, member.offset_data, member.size, status.st_mtime_ns)


class Pictures:
    """Picture files as images: see source.Source. Grey ones, palettes and alpha become RGB.

    Args:
        name: what people call them.
        entries: where they lie.
    """

    in_order = False

    def __init__(self, name: str, entries: Sequence[Entry]) -> None:
        self.name, self.entries = name, entries
        self._size: tuple[int, int] | None = None
        self._first = ""

    def __len__(self) -> int:
        return len(self.entries)

    def read(self, numbers: range) -> Part:
        """See source.Source."""
        images: list[NDArray[np.uint8]] = []
        kept, bad = [], []
        for number in numbers:
            entry = self.entries[number]
            try:
                images.append(_decoded(entry))
            except Exception as error:  # Pillow raises nearly everything
                reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
                bad.append(f"{entry.name} ({reason})")
            else:
                kept.append(number)
        self._check_sizes([self.entries[n].name for n in kept], images)
        height, width = self._size or (1, 1)
        stacked = np.stack(images) if images else np.empty((0, height, width, 3), np.uint8)
        return Part(torch.from_numpy(stacked).permute(0, 3, 1, 2), kept, tuple(bad))

    def _check_sizes(self, names: Sequence[str], images: Sequence[NDArray[np.uint8]]) -> None:
        """All as large as the first readable picture, whichever thread reads what first."""
        if self._size is None:
            self._size, self._first = _first_size(self.entries)
        others = [
            f"{name} ({image.shape[1]}x{image.shape[0]})"
            for name, image in zip(names, images, strict=True)
            if image.shape[:2] != self._size
        ]
        if others:
            height, width = self._size
            more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
            problem = f"{self._first} is {width}x{height}, but {', '.join(others[:SHOWN])}{more}"
            raise InputError("images", problem, "Give images of one size")

    def fingerprint(self) -> str:
        """See source.Source."""
        return digest([(each.name, each.offset, each.size, each.time) for each in self.entries])

    def close(self) -> None:
        """Nothing stays open."""


def _decoded(entry: Entry) -> NDArray[np.uint8]:
    """(H, W, 3) uint8."""
    with _opened(entry) as image:
        if image.mode not in MODES:
            raise ValueError(f"it has more than 8 bits a channel (mode {image.mode})")
        return np.asarray(image.convert("RGB"))


def _opened(entry: Entry) -> Image.Image:
    """A picture of which only the header is read."""
    if entry.size > LARGEST:
        raise ValueError(f"it has {entry.size} bytes")
    nofollow = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(entry.path, os.O_RDONLY | nofollow)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is no regular file")
        file.seek(entry.offset)
        data = file.read(entry.size)
    if len(data) < entry.size:
        raise EOFError("it is shorter than it was when it was listed")
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > PIXELS:
        raise ValueError(f"it is {image.width}x{image.height}")
    return image


def _first_size(entries: Sequence[Entry]) -> tuple[tuple[int, int], str]:
    """(height, width) of the first picture that can be read, and its name."""
    for entry in entries:
        try:
            height, width, _ = _decoded(entry).shape
        except Exception:  # named by whoever reads it
            continue
        return (height, width), entry.name
    return (1, 1), ""  # none: there is nothing to compare
