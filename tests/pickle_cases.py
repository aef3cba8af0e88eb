"""Pickles by hand, streams of torch.save around them, and a watch over what runs meanwhile."""

from __future__ import annotations

import io
import pickle
import resource
import struct
import sys
import time
import types
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from reg_engine import InputError
from reg_engine.convert.states import State, state_of

# What a file that is read has no business to cause.
EVENTS = ("exec", "compile", "import", "os.", "subprocess.", "pickle.", "shutil.", "socket.")
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_seen: list[str] | None = None


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _seen is not None:
        writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
        if event.startswith(EVENTS) or writes:
            _seen.append(f"{event} {args!r:.200}")


sys.addaudithook(_hook)  # for good, and silent outside of `watched`
b"a".decode("cp437")  # what zipfile imports at its first archive


@contextmanager
def watched() -> Iterator[list[str]]:
    """The events that show that something ran."""
    global _seen
    _seen = seen = []
    try:
        yield seen
    finally:
        _seen = None


def refused(path: Path, read: Callable[[Path], Any] = state_of) -> str:
    """The one error of a file: within a second and 100 MB, and nothing ran."""
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with watched() as seen, pytest.raises(InputError) as caught:
        read(path)
    assert seen == []
    assert time.process_time() - begun < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
    text = str(caught.value)
    assert len(text) < 800 and text.isprintable() and path.name in text, text
    return text


def kept(path: Path) -> State:
    """What a good file holds; nothing ran."""
    with watched() as seen:
        found = state_of(path)
    assert seen == []
    return found


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def name(module: str, called: str) -> bytes:
    return f"c{module}\n{called}\n".encode()


def stacked(module: str, called: str) -> bytes:
    return text(module) + text(called) + b"\x93"


def blob(value: bytes) -> bytes:
    return b"\x8e" + struct.pack("<Q", len(value)) + value


def stream(body: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + body + b"."


def archive(body: bytes, members: dict[str, bytes] | None = None, kind: int = 0) -> bytes:
    """As torch.save writes: data.pkl and a member for each storage."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as file:
        file.writestr("archive/data.pkl", stream(body))
        file.writestr("archive/version", b"3\n")
        for key, data in (members or {}).items():
            file.writestr(f"archive/{key}", data)
    return out.getvalue()


def legacy(body: bytes, storages: dict[str, bytes] | None = None, item: int = 4) -> bytes:
    """As torch.save wrote before: five streams and the storages."""
    system = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {}}
    parts = [pickle.dumps(part, 2) for part in (MAGIC, PROTOCOL, system)]
    parts += [stream(body), pickle.dumps(list(storages or {}), 2)]
    parts += [struct.pack("<q", len(data) // item) + data for data in (storages or {}).values()]
    return b"".join(parts)


def storage(key: str, size: int, kind: str = "FloatStorage") -> bytes:
    """A persistent id."""
    inside = text("storage") + name("torch", kind) + text(key) + text("cpu") + number(size)
    return b"(" + inside + b"tQ"


def sizes(*values: int) -> bytes:
    return b"(" + b"".join(number(value) for value in values) + b"t"


def tensor(held: bytes, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    inside = held + number(offset) + sizes(*shape) + sizes(*stride) + b"\x89}"
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + inside + b"tR"


def state(**tensors: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in tensors.items()) + b"u"


def nested(data: bytes) -> bytes:
    """torch.storage._load_from_bytes, as tensors in plain pickles have it."""
    return name("torch.storage", "_load_from_bytes") + blob(data) + b"\x85R"


@contextmanager
def persistence() -> Iterator[Callable[[Any], Any]]:
    """NVIDIA's way of pickling a network with its source, imitated: gives the class decorator."""
    source = "raise SystemExit('the source in a pickle was run')"
    package, module = types.ModuleType("torch_utils"), types.ModuleType("torch_utils.persistence")
    util = types.ModuleType("dnnlib.util")

    def _reconstruct_persistent_obj(meta: Any) -> Any:
        raise SystemExit("a persistent object was made")

    _reconstruct_persistent_obj.__module__ = module.__name__
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    easy = type("EasyDict", (dict,), {"__module__": util.__name__})
    util.EasyDict = easy  # type: ignore[attr-defined]

    def persistent(kind: Any) -> Any:
        class Decorated(kind):
            def __reduce__(self) -> Any:
                meta = {
                    "type": "class",
                    "version": 6,
                    "module_src": source,
                    "class_name": kind.__name__,
                    "state": super().__reduce__()[2],
                }
                return _reconstruct_persistent_obj, (meta,), None

        return Decorated

    persistent.EasyDict = easy  # type: ignore[attr-defined]
    names = {"torch_utils": package, module.__name__: module}
    names |= {"dnnlib": types.ModuleType("dnnlib"), util.__name__: util}
    with pytest.MonkeyPatch.context() as patch:
        for key, value in names.items():
            patch.setitem(sys.modules, key, value)
        yield persistent


def same(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Equal bit for bit, in dtype and shape."""
    if found.dtype != wanted.dtype or found.shape != wanted.shape:
        return False
    flat = (torch.empty(each.numel(), dtype=each.dtype) for each in (found, wanted))
    one, other = (
        each.copy_(value.detach().flatten()).view(torch.uint8)
        for each, value in zip(flat, (found, wanted), strict=True)
    )
    return torch.equal(one, other)
