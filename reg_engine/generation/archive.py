"""The one archive of an npz job, as ADM's evaluator reads it; the parts it was put together from
go, so that images lie on the disk once. A part is a stretch of the archive: whoever needs its bytes
again makes them of that."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..storage.files import member
from ..storage.readers import open_archive, open_regular, read_header, read_npz, refusing
from .labels import Label
from .records import ARCHIVE, Records, files_in

__all__ = ["kept_seeds", "part", "rows_of", "write"]

_LOCAL = struct.Struct("<4s22xHH")  # of a member's own header: mark, lengths of name and extra
_REMEDY = "Remove it: what it held is made again"


def kept_seeds(records: Records, number: int, body: dict[str, Any]) -> list[int]:
    """The seeds of a shard whose images were made."""
    lost = {row["seed"] for row in body["failed"]}
    return [seed for seed in records.job.shard(number).seeds if seed not in lost]


def write(records: Records, file: BinaryIO) -> list[list[Any]]:
    """All shards as one: arr_0 piece by piece, then the labels; [images, checksum] of each part."""
    bodies = list(_bodies(records))
    seeds = [kept_seeds(records, number, body) for number, body in enumerate(bodies)]
    count, labels = sum(map(len, seeds)), records.job.labels
    begun, kinds = False, set()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        with member(archive, "arr_0.npy") as array:
            for number, body in enumerate(bodies):
                if not seeds[number]:
                    continue
                images = rows_of(records, number, body)
                if not begun:
                    _header(array, (count, *images.shape[1:]), "|u1")
                    begun = True
                array.write(images.tobytes())
        every: list[Label] = [labels.of(seed) for some in seeds for seed in some]
        kinds = {type(label) for label in every}
        if kinds <= {int}:
            with member(archive, "arr_1.npy") as array:
                np.lib.format.write_array(array, np.array(every, dtype="<i8"))
    return [
        [len(some), *(each.sha256 for each in files_in(body))]
        for some, body in zip(seeds, bodies, strict=True)
    ]


def rows_of(records: Records, number: int, body: dict[str, Any]) -> NDArray[np.uint8]:
    """A shard's images (n, H, W, 3): of its part, else of the archive.

    Raises:
        InputError: both are gone, or damaged.
    """
    (file,) = files_in(body)
    held = records.held(number, body)  # asked first: parts go only after the archive is there
    if held is None or records.there(file):
        return read_npz(records.out / file.path, ("arr_0",), _REMEDY, argument="out")["arr_0"]
    start, count = held
    path = records.out / ARCHIVE
    with refusing("out", f"{path} is damaged", _REMEDY), open_regular(path) as data:
        with open_archive(data) as archive:
            info = archive.getinfo("arr_0.npy")
        data.seek(info.header_offset)
        mark, name, extra = _LOCAL.unpack(data.read(_LOCAL.size))
        if mark != b"PK\3\4" or info.compress_type != zipfile.ZIP_STORED:
            raise ValueError("it is not as it was written")
        data.seek(name + extra, 1)
        shape = read_header(data, data.tell() + info.file_size).shape
        size = int(np.prod(shape[1:]))
        data.seek(start * size, 1)
        content = data.read(count * size)
        return np.frombuffer(content, np.uint8).reshape(count, *shape[1:])


def part(records: Records, number: int, body: dict[str, Any]) -> bytes:
    """A part's bytes made again of the archive: of the checksum that its record names, if the
    archive is whole."""
    seeds, images = kept_seeds(records, number, body), rows_of(records, number, body)
    labels = [records.job.labels.of(seed) for seed in seeds]
    ((_, data),) = records.job.writer().files(f"{number:06d}", images, seeds, labels)
    return data


def _bodies(records: Records) -> Iterator[dict[str, Any]]:
    for name in records.names():
        body = records.read(name)
        if body is None:
            problem = f"{records.out} lost the record of shard {name} just now"
            raise InputError("out", problem, "Give the same command again")
        yield body


def _header(file: Any, shape: tuple[int, ...], kind: str) -> None:
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
