"""Readers check sizes before they take memory, and no parser's error gets through."""

from __future__ import annotations

import io
import json
import os
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reg_engine import InputError
from reg_engine.storage.readers import Header, read_json, read_npz


def refused(call: Callable[[], Any], problem: str = "") -> None:
    """One InputError, within a second and 100 MB; each by itself, since tracing is slow."""
    begun = time.process_time()
    with pytest.raises(InputError, match=problem):
        call()
    seconds = time.process_time() - begun
    tracemalloc.start()
    with pytest.raises(InputError, match=problem) as caught:
        call()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)
    assert seconds < 1 and peak < 100e6


def header(shape: str, kind: str = "'|u1'", version: bytes = b"\1\0") -> bytes:
    text = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}}}".encode() + b"\n"
    length = struct.pack("<H" if version == b"\1\0" else "<I", len(text))
    return b"\x93NUMPY" + version + length + text


def npz(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def claim(data: bytes, size: int) -> bytes:
    """The archive with another size of its first member in the table of contents."""
    place = data.index(b"PK\1\2") + 24
    return data[:place] + struct.pack("<I", size) + data[place + 4 :]


def bomb(method: int) -> bytes:
    """A member of which header and table of contents agree on 3 GB."""
    start = header("(3000000000,)")
    return claim(npz({"x.npy": start + bytes(9)}, method), len(start) + 3_000_000_000)


EVIL = {
    "3 GB by agreement": bomb(zipfile.ZIP_STORED),
    "3 compressed GB by agreement": bomb(zipfile.ZIP_DEFLATED),
    "2^40 images": npz({"x.npy": header("(1099511627776, 28, 28)")}),
    "more than the file": npz({"x.npy": header("(1000,)") + bytes(10)}),
    "less than the member": npz({"x.npy": header("(10,)") + bytes(1000)}),
    "a size that overflows": npz({"x.npy": header("(4294967296, 4294967296, 4294967296)")}),
    "a negative size": npz({"x.npy": header("(-1,)") + bytes(10)}),
    "two negative sizes": npz({"x.npy": header("(-1, -10)") + bytes(10)}),
    "65 axes": npz({"x.npy": header(str((1,) * 65)) + bytes(1)}),
    "objects": npz({"x.npy": header("(1,)", "'|O'") + bytes(8)}),
    "a nested header": npz({"x.npy": header("(" * 5000, version=b"\2\0")}),
    "a long header": npz({"x.npy": header("(1," + " " * 60_000 + ")")}),
    "another version": npz({"x.npy": header("(1,)", version=b"\7\0") + bytes(1)}),
    "an archive that claims 4 GB": claim(npz({"x.npy": header("(9,)") + bytes(9)}), 2**32 - 2),
    "a compressed one that does": claim(
        npz({"x.npy": header("(4294967198,)") + bytes(9)}, zipfile.ZIP_DEFLATED), 2**32 - 2
    ),
    "another compression": npz({"x.npy": header("(1,)") + bytes(1)}, zipfile.ZIP_LZMA),
    "many members": npz(
        {"x.npy": header("(1,)") + bytes(1)} | {f"{i}": b"" for i in range(25_000)}
    ),
    "no array": npz({"x.npy": b"text"}),
    "another array": npz({"y.npy": header("(1,)") + bytes(1)}),
    "text": b"text",
    "nothing": b"",
}


@pytest.mark.parametrize("name", EVIL)
def test_an_archive_takes_no_more_than_it_holds(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(EVIL[name])
    refused(lambda: read_npz(path, ("x",), "Give another"), "Give another")


@pytest.mark.parametrize("lie", ["size", "method"])
def test_names_of_members_are_printable_in_errors(lie: str, tmp_path: Path) -> None:
    """A name is anybody's: control characters, and as long as 64 KiB."""
    name = "a\x01\x1b[31m" + "b" * 1000
    data = bytearray(npz({name: b"abc"}))
    entry = data.rindex(b"PK\1\2")  # in the table of contents
    if lie == "size":
        data[entry + 24 : entry + 28] = (1 << 24).to_bytes(4, "little")
    else:
        data[entry + 10 : entry + 12] = (14).to_bytes(2, "little")
    path = tmp_path / "x.npz"
    path.write_bytes(bytes(data))
    words = "claims 16777216 bytes" if lie == "size" else "is compressed in an unknown way"
    with pytest.raises(InputError, match=words) as caught:
        read_npz(path, ("x",), "Give another")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_arrays_come_back(write: Callable[..., None], tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "a": np.arange(12.0).reshape(3, 4).T,
        "empty": np.zeros((0, 3), np.uint8),
        "scalar": np.array(True),
        "long": np.zeros(10**6),  # 1,000 to 1 where it is compressed
    }
    write(tmp_path / "x.npz", **arrays)
    back = read_npz(tmp_path / "x.npz", tuple(arrays), "")
    for name, value in arrays.items():
        np.testing.assert_array_equal(back[name], value)
        assert back[name].dtype == value.dtype


def test_shapes_are_checked_before_the_values_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros((2, 3), np.uint8))
    monkeypatch.setattr(np.lib.format, "read_array", None)

    def check(headers: Any) -> None:
        assert headers == {"a": Header((2, 3), np.dtype(np.uint8))} and headers["a"].ndim == 2
        raise InputError("data", "is seen", "Nothing was read")

    with pytest.raises(InputError, match="is seen"):
        read_npz(tmp_path / "x.npz", ("a",), "", check)


JSONS = {
    "nested lists": b"[" * 500_000,
    "nested tables": b'{"a":' * 100_000,
    "a long integer": b"9" * 5000,
    "too large": b" " * ((1 << 20) + 1),
    "other letters": b"\xff\xfe{",
    "half": b'{"a": ',
}


@pytest.mark.parametrize("name", JSONS)
def test_texts_that_are_no_json(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(JSONS[name])
    refused(lambda: read_json(tmp_path / "x.json", "plan", "Give another"), "plan: .*Give another")


def test_a_json_comes_back(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, "é"], "b": {"c": True}}
    (tmp_path / "x.json").write_text(json.dumps(value), encoding="utf-8")
    assert read_json(tmp_path / "x.json", "plan", "") == value
    (tmp_path / "x.json").write_bytes(b"[" + b"{}," * 349_000 + b"{}]")  # the most objects a byte
    assert len(read_json(tmp_path / "x.json", "plan", "")) == 349_001


def test_what_never_ends_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "none", "a\0b"):
        refused(lambda path=path: read_json(path, "plan", ""), "cannot be read")
        refused(lambda path=path: read_npz(path, ("x",), ""), "no readable .npz")
