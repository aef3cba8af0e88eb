"""Published checkpoints: torch.save's archives and older streams, plain pickles, safetensors.

`read` gives the tree of what lies in a file, with its tensors as `Stored`: nothing of the file is
run or imported (machine.py, names.py), and tensors stay in the file, which is mapped, until they
are read one by one. Sizes are held against the bytes that are there before anything is taken.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable
from typing import Any, BinaryIO

from ..storage.readers import open_archive, open_regular, refusing
from ..storage.weights import FORMAT
from .machine import Machine
from .names import call, dtype_of
from .names import named as _named
from .records import Budget, Name
from .tensors import DTYPES, Storage, Stored

__all__ = ["read"]

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of torch.save before it wrote archives
_HEADER = 1 << 24  # bytes of a safetensors file's table
_NESTED = Name("torch.storage", "_load_from_bytes")

Persistent = Callable[[Any], Any]


def read(path: str | os.PathLike[str], argument: str = "path") -> Any:
    """What a checkpoint holds: dicts, lists, texts, numbers, `Record`s and `Stored` tensors.

    Args:
        path: a file that torch.save wrote, a pickle of NVIDIA's EDM and EDM2, or safetensors.
        argument: what the caller calls it.

    Raises:
        InputError: it cannot be read, is truncated or damaged, names a class or function that is
            not read here, or claims more than it holds.
    """
    remedy = "Give a checkpoint as its authors published it, or one of its state dict alone"
    with (
        refusing(argument, f"{str(path)!r} is not converted", remedy),
        open_regular(path) as file,
    ):
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        if bytes(data[:4]) == b"PK\3\4":
            return _archive(data, file)
        if bytes(data[:1]) == b"\x80":
            return _Streams(data).whole()
        if bytes(data[8:9]) == b"{":
            return _safetensors(data)
        raise ValueError("it is no archive or stream of torch.save, no pickle and no safetensors")


def _archive(data: memoryview, file: BinaryIO) -> Any:
    """torch.save: a zip of data.pkl and a member for each storage, none compressed."""
    with open_archive(file) as archive:
        members = {}
        for each in archive.infolist():
            if each.compress_type or each.flag_bits & 1 or each.file_size != each.compress_size:
                raise ValueError(f"{each.filename[:80]!r} in it is compressed or encrypted")
            if each.filename in members:
                raise ValueError(f"{each.filename[:80]!r} is in it twice")
            start = each.header_offset
            head = data[start : start + 30]
            if start < 0 or len(head) < 30 or bytes(head[:4]) != b"PK\3\4":
                raise ValueError(f"{each.filename[:80]!r} in it is not where it should be")
            start += 30 + int.from_bytes(head[26:28], "little")
            start += int.from_bytes(head[28:30], "little")
            members[each.filename] = data[start : start + each.file_size]
            if len(members[each.filename]) < each.file_size:
                raise ValueError(f"{each.filename[:80]!r} in it ends after the file")
    root = next((name[: -len("data.pkl")] for name in members if name.endswith("/data.pkl")), None)
    if root is None or f"{root}constants.pkl" in members:
        raise ValueError("an archive that torch.save did not write: TorchScript, or a plain zip")
    if bytes(members.get(f"{root}byteorder", b"little")[:8]) != b"little":
        raise ValueError("its numbers are big-endian")

    def stored(key: str, dtype: Any, size: Any) -> Storage:
        if f"{root}data/{key}" not in members:
            raise ValueError(f"storage {key[:80]!r} is not in the archive")
        return Storage(dtype, size, members[f"{root}data/{key}"])

    return _Streams(members[f"{root}data.pkl"]).one(_storages(stored))


def _storages(stored: Callable[[str, Any, Any], Storage]) -> Persistent:
    """Storages by their persistent ids: ("storage", class, key, place, size[, no view])."""

    def found(identity: Any) -> Storage:
        if type(identity) is not tuple or len(identity) not in (5, 6):
            raise ValueError("a persistent id that is none of a storage")
        kind, name, key, _, size = identity[:5]
        if type(kind) is not str or kind != "storage" or type(key) is not str:
            raise ValueError("a persistent id that is none of a storage")
        if identity[5:] not in ((), (None,)):
            raise ValueError("a storage that is a part of another")
        return stored(key, dtype_of(name), size)

    return found


def _nothing(_: Any) -> Any:
    raise ValueError("a persistent id outside of torch.save's own files")


class _Streams:
    """Pickle streams one after another in some bytes.

    Args:
        data: the bytes.
        budget: of all of them and those in them.
        nested: whether they lie in another stream.
    """

    def __init__(
        self, data: memoryview, budget: Budget | None = None, nested: bool = False
    ) -> None:
        self.data, self.budget, self.nested = data, budget or Budget(), nested
        self.place = 0

    def next(self, persistent: Persistent = _nothing, plain: bool = False) -> Any:
        """The next stream's value; in a plain pickle a storage may be a stream of its own."""

        def named(module: str, name: str) -> Name:
            found = Name(module, name)
            return found if plain and found == _NESTED else _named(module, name)

        def called(name: Name, args: tuple[Any, ...]) -> Any:
            return self._inner(args) if name == _NESTED else call(name, args)

        machine = Machine(
            self.data, self.place, self.budget, call=called, named=named, persistent=persistent
        )
        value, self.place = machine.run()
        return value

    def one(self, persistent: Persistent = _nothing) -> Any:
        """The value of the only stream."""
        return self._ended(self.next(persistent))

    def whole(self) -> Any:
        """What a plain pickle, or torch.save before its archives, holds."""
        value = self.next(plain=not self.nested)
        if type(value) is not int or value != _MAGIC:
            return self._ended(value)
        version, system = self.next(), self.next()
        if (
            version != _PROTOCOL
            or type(system) is not dict
            or system.get("little_endian") is not True
        ):
            raise ValueError("a stream of torch.save of unknown version, or big-endian")
        storages: dict[str, Storage] = {}

        def stored(key: str, dtype: Any, size: Any) -> Storage:
            known = storages.setdefault(key, Storage(dtype, size))
            if (known.dtype, known.size) != (dtype, size):
                raise ValueError(f"storage {key[:80]!r} is claimed with two sizes")
            return known

        value = self.next(_storages(stored))
        keys = self.next()
        if type(keys) is not list or not all(type(key) is str for key in keys):
            raise ValueError("a list of storages that is none")
        if sorted(keys) != sorted(storages):
            raise ValueError("its tensors and its storages do not belong together")
        for key in keys:
            storage = storages[key]
            size = int.from_bytes(self.data[self.place : self.place + 8], "little")
            if size != storage.size:
                raise ValueError(
                    f"truncated, or storage {key[:80]!r} has another size than claimed"
                )
            storage.attach(self.data[self.place + 8 :])
            self.place += 8 + storage.nbytes
        return self._ended(value)

    def _inner(self, args: tuple[Any, ...]) -> Storage:
        """torch.storage._load_from_bytes: a stream of torch.save that holds one storage."""
        if len(args) != 1 or type(args[0]) is not memoryview:
            raise ValueError("a storage that is no stream of bytes")
        value = _Streams(args[0], self.budget, nested=True).whole()
        if type(value) is not Storage:
            raise ValueError("a stream within the stream that holds no storage")
        return value

    def _ended(self, value: Any) -> Any:
        if self.place != len(self.data):
            raise ValueError(f"{len(self.data) - self.place} bytes follow its end")
        return value


def _safetensors(data: memoryview) -> dict[str, Stored]:
    """Every tensor of a safetensors file, by name."""
    size = int.from_bytes(data[:8], "little")
    if size > min(_HEADER, len(data) - 8):
        raise ValueError(f"truncated, or no safetensors: a table of {size} bytes")
    table = json.loads(str(data[8 : 8 + size], "utf-8"))
    if type(table) is not dict:
        raise ValueError("a table that is none")
    if FORMAT in (table.get("__metadata__") or {}):
        raise ValueError("it is converted already: load_model reads it")
    body, found = data[8 + size :], {}
    for name, entry in table.items():
        if name != "__metadata__":
            try:
                found[name] = _entry(name, entry, body)
            except (TypeError, KeyError) as error:
                raise ValueError(f"{name[:80]!r} is none of its table's entries") from error
    return found


def _entry(name: str, entry: Any, body: memoryview) -> Stored:
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"{name[:80]!r} has numbers of type {str(entry['dtype'])[:20]!r}")
    dtype, shape, place = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    start, end = place if len(place) == 2 else (-1, -1)
    piece = body[start:end]
    if start < 0 or len(piece) != end - start or len(shape) > 16:
        raise ValueError(f"truncated: {name[:80]!r} ends after the file")
    strides, step = [], 1
    for side in reversed(shape):
        strides.append(step)
        step *= side
    storage = Storage(dtype, len(piece) // dtype.itemsize, piece)
    found = Stored(storage, dtype, 0, tuple(shape), tuple(reversed(strides)))
    if found.nbytes != len(piece):
        raise ValueError(f"{name[:80]!r} has other sizes than its bytes")
    return found
