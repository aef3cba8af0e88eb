"""Sources of 8-bit images, each image by its number: arrays, tensors, and the door to all."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError
from ..pictures.images import to_uint8
from ..storage.digest import digest
from ..storage.readers import Header, open_archive, open_regular, read_header, refusing
from .pictures import Pictures, listed
from .source import Part, Source

__all__ = ["ArrayFile", "Tensors", "open_images"]

REMEDY = (
    "Give a folder of PNG, JPEG or WebP files or of .tar shards, an .npz or .npy of (N, H, W, 3) "
    "uint8, or an archive of `reg-engine sample --out x.npz`"
)
KEYS = ("arr_0", "samples", "images")  # of ADM and DiT, of `reg-engine sample`, of others
MOST = 1 << 31  # bytes of one image's values
PIECE = 1 << 20  # bytes read at once


def open_images(path: str | os.PathLike[str]) -> Source:
    """The images of a folder, a .tar, an .npz or an .npy; nothing is unpickled.

    Args:
        path: a folder (searched with its subfolders; PNG, JPEG and WebP files, and such files in
            .tar shards as WebDataset writes them; in the order of their names), one .tar, an .npz
            with `arr_0` (N, H, W, 3) uint8 as ADM and DiT write it, an .npy, or what
            `reg-engine sample --out x.npz` wrote (`samples`, floats in [-1, 1], made pictures of
            as it does).

    Raises:
        InputError: there is no such thing; a link in the folder; no image in it; arrays of another
            kind.
    """
    place = Path(path)
    if place.is_dir() or place.suffix == ".tar":
        return Pictures(str(path), listed(place))
    if place.suffix in (".npz", ".npy"):
        return ArrayFile(place)
    problem = "is no kind that is known" if place.exists() else "is not there"
    raise InputError("images", f"{str(path)!r} {problem}", REMEDY)


class ArrayFile:
    """Images of one array in an .npy or .npz, read piece by piece: its size takes no memory.

    Args:
        path: the file. A compressed .npz can only be read from the first to the last.

    Raises:
        InputError: see open_images.
    """

    def __init__(self, path: Path) -> None:
        self.name, self._path = str(path), path
        self._lock, self._stack = threading.Lock(), ExitStack()
        with refusing("images", f"{self.name!r} cannot be read", REMEDY), ExitStack() as stack:
            file = stack.enter_context(open_regular(path))
            status = os.fstat(file.fileno())
            size = status.st_size
            self._file: IO[bytes] = file
            self.in_order = False
            if path.suffix == ".npz":
                archive = stack.enter_context(open_archive(file))
                found = [key for key in KEYS if f"{key}.npy" in archive.NameToInfo]
                if not found:
                    raise InputError("images", f"{self.name!r} lacks {KEYS[0]}", REMEDY)
                member = archive.getinfo(f"{found[0]}.npy")
                size, self._file = member.file_size, stack.enter_context(archive.open(member))
                self.in_order = bool(member.compress_type)
            else:
                file.seek(0)
            self._header = self._checked(read_header(self._file, size))
            self._start = self._file.tell()
            self._key = digest(status.st_size, status.st_mtime_ns, tuple(self._header.shape))
            self._stack = stack.pop_all()

    def _checked(self, header: Header) -> Header:
        """uint8 with the channels last, or floats with the channels first."""
        shape, kind = header.shape, header.dtype
        bytes_each = kind.itemsize * int(np.prod(shape[1:], dtype=object)) if shape else 0
        fits = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
        fits &= kind == np.uint8
        self._floats = kind in (np.float16, np.float32, np.float64)
        fits |= self._floats and len(shape) == 4 and shape[1] in (1, 3)
        if not fits or header.fortran or not 0 < bytes_each < MOST or not shape[0]:
            raise InputError("images", f"{self.name!r} is {kind} {shape}", REMEDY)
        self._bytes = bytes_each
        return header

    def __len__(self) -> int:
        return self._header.shape[0]

    def read(self, numbers: range) -> Part:
        """See source.Source."""
        with refusing("images", f"{self.name!r} is damaged", "Write it again"), self._lock:
            self._file.seek(self._start + numbers.start * self._bytes)
            data = bytearray(len(numbers) * self._bytes)
            view, filled = memoryview(data), 0
            while filled < len(data):
                piece = self._file.read(min(len(data) - filled, PIECE))
                if not piece:
                    raise EOFError("it ends too early")
                view[filled : filled + len(piece)] = piece
                filled += len(piece)
        shape = (len(numbers), *self._header.shape[1:])
        values = np.frombuffer(data, self._header.dtype).reshape(shape)
        if self._floats:
            where = f"{self.name!r}, images {numbers.start} to {numbers.stop - 1},"
            return Part(pictured(torch.from_numpy(values), where), list(numbers))
        return Part(channels_first(values), list(numbers))

    def fingerprint(self) -> str:
        """See source.Source."""
        return self._key

    def close(self) -> None:
        """See source.Source."""
        self._stack.close()


class Tensors:
    """Images in memory.

    Args:
        images: (N, 1 or 3, H, W) uint8, or floats in [-1, 1], which are rounded and clipped as in
            a picture; or an array (N, H, W), (N, H, W, 1) or (N, H, W, 3) uint8.

    Raises:
        InputError: something else; NaN or Inf.
    """

    in_order = False

    def __init__(self, images: Tensor | NDArray[Any], name: str = "images in memory") -> None:
        self.name = name
        if isinstance(images, np.ndarray):
            self._images = _of_array(images)
        elif images.ndim == 4 and images.shape[1] in (1, 3) and images.dtype == torch.uint8:
            self._images = images.detach()
        else:
            self._images = pictured(images.detach(), name)

    def __len__(self) -> int:
        return len(self._images)

    def read(self, numbers: range) -> Part:
        """See source.Source."""
        return Part(self._images[numbers.start : numbers.stop], list(numbers))

    def fingerprint(self) -> str:
        """See source.Source; here of every value."""
        return digest(self._images)

    def close(self) -> None:
        """Nothing to do."""


def pictured(samples: Tensor, name: str = "images") -> Tensor:
    """Samples (N, 1 or 3, H, W) in [-1, 1] as 8-bit pictures (N, 1 or 3, H, W): to_uint8's.

    Raises:
        InputError: another shape, or NaN or Inf.
    """
    if not samples.is_floating_point() or not bool(samples.isfinite().all()):
        kind = "NaN or Inf" if samples.is_floating_point() else f"{samples.dtype}"
        raise InputError("images", f"{name} hold {kind}", "Give uint8, or finite floats in [-1, 1]")
    return to_uint8(samples).permute(0, 3, 1, 2)


def channels_first(values: NDArray[np.uint8]) -> Tensor:
    """(N, H, W) or (N, H, W, C) as (N, 1 or C, H, W)."""
    images = torch.from_numpy(values)
    return images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)


def _of_array(values: NDArray[Any]) -> Tensor:
    shape: Sequence[int] = values.shape
    if values.dtype != np.uint8 or not (
        len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
    ):
        raise InputError("images", f"are {values.dtype} {tuple(shape)}", "Give (N, H, W, 3) uint8")
    return channels_first(np.ascontiguousarray(values))
