"""How this package reads files that may hold anything: sizes are checked before memory is taken.

No parser's error gets through: whatever a file holds, its reader returns values or raises one
InputError. What the values mean is checked by those who ask for them.
"""

from __future__ import annotations

import json
import math
import os
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

__all__ = [
    "Header",
    "open_archive",
    "open_regular",
    "read_header",
    "read_json",
    "read_npz",
    "refusing",
]

JSON_BYTES = 1 << 20  # of a whole text: lists of lists take 70 times as much memory
_DIRECTORY = 1 << 20  # bytes of an archive's table of contents
_DEFLATE = 1032  # bytes that one compressed byte can stand for


class Header(NamedTuple):
    """What an array will be, before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool = False  # columns first

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)


Check = Callable[[Mapping[str, Header]], None]


@contextmanager
def refusing(argument: str, problem: str, remedy: str) -> Iterator[None]:
    """InputError for whatever a parser makes of foreign bytes; an InputError inside passes."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # parsers raise nearly everything: MemoryError, RecursionError, ...
        lines = str(error).splitlines()
        reason = lines[0][:200] if lines else type(error).__name__
        raise InputError(argument, f"{problem} ({reason})", remedy) from error


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """A file open for reading; a pipe or a device, which may never end, raises OSError."""
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115, the caller closes it
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(f"{str(path)!r} is no regular file")
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait for a writer


def read_json(path: str | os.PathLike[str], argument: str, remedy: str) -> Any:
    """What a JSON file of at most 1 MiB holds.

    Raises:
        InputError: it cannot be read, is too large, or is not JSON.
    """
    with refusing(argument, f"{path} cannot be read", remedy), open_regular(path) as file:
        data = file.read(JSON_BYTES + 1)
    if len(data) > JSON_BYTES:
        raise InputError(argument, f"{path} is larger than {JSON_BYTES >> 20} MiB", remedy)
    with refusing(argument, f"{path} is not JSON", remedy):
        return json.loads(data.decode("utf-8"))


@contextmanager
def open_archive(file: BinaryIO) -> Iterator[zipfile.ZipFile]:
    """A zip whose table of contents and members are no larger than the file can hold.

    Raises:
        ValueError, zipfile.BadZipFile: it is none.
    """
    size = file.seek(0, os.SEEK_END)
    # The end of an archive without comment, as numpy and torch write it, perhaps with zip64 records
    # before: each says how long the table of contents is.
    file.seek(max(0, size - 98))
    end = file.read(98)
    long = end[-42:].startswith(b"PK\6\7")
    table = int.from_bytes(end[40:48] if long else end[-10:-6], "little")
    if not end[-22:].startswith(b"PK\5\6") or table > _DIRECTORY:
        raise zipfile.BadZipFile("no archive, or one with too many members")
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            factor = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: _DEFLATE}
            if member.compress_type not in factor:
                raise ValueError(f"{member.filename[:80]!r} is compressed in an unknown way")
            most = factor[member.compress_type] * min(member.compress_size, size)
            if member.file_size > most:
                raise ValueError(f"{member.filename[:80]!r} claims {member.file_size} bytes")
        yield archive


def read_npz(
    path: str | os.PathLike[str],
    keys: tuple[str, ...],
    remedy: str,
    check: Check | None = None,
    argument: str = "data",
    also: tuple[str, ...] = (),
) -> dict[str, NDArray[Any]]:
    """The arrays `keys` of an .npz, and those of `also` that it has; nothing unpickled.

    Args:
        check: given the arrays' shapes and dtypes before any is read; raises for those it refuses.

    Raises:
        InputError: it lacks one of them, claims more than it holds, or is no readable .npz; it ends
            with `remedy`.
    """
    where = repr(str(path))
    with (
        refusing(argument, f"{where} is no readable .npz", remedy),
        open_regular(path) as file,
        open_archive(file) as archive,
    ):
        missing = [key for key in keys if f"{key}.npy" not in archive.NameToInfo]
        if missing:
            raise InputError(argument, f"{where} lacks {', '.join(missing)}", remedy)
        keys += tuple(key for key in also if f"{key}.npy" in archive.NameToInfo)
        headers = {key: _header(archive, f"{key}.npy") for key in keys}
        if check is not None:
            check(headers)
        return {key: _array(archive, f"{key}.npy") for key in keys}


def read_header(file: IO[bytes], size: int) -> Header:
    """Shape and dtype of an .npy of `size` bytes, which is as long as they say; the file then
    stands at its values.

    Raises:
        ValueError, KeyError: it is none.
    """
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, fortran, dtype = read(file)
    claimed = math.prod(shape) * dtype.itemsize
    if claimed != size - file.tell():
        raise ValueError(f"it claims {claimed} bytes of values")
    return Header(shape, dtype, fortran)


def _header(archive: zipfile.ZipFile, name: str) -> Header:
    """Shape and dtype of a member."""
    with archive.open(name) as member:
        return read_header(member, archive.getinfo(name).file_size)


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with archive.open(name) as member:
        array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
        return array
