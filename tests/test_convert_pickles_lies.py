"""Archives and streams that do not hold what they claim: refused by one error that says so."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from pickle_cases import (
    MAGIC,
    PROTOCOL,
    archive,
    blob,
    kept,
    legacy,
    nested,
    refused,
    same,
    state,
    storage,
    stream,
    tensor,
    text,
)

from reg_engine.convert.pickles import read


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


ONE = {"data/0": bytes(16)}
A = tensor(storage("0", 4), 0, (4,), (1,))


@pytest.mark.parametrize("make", [archive, legacy])
def test_hand_made_files_are_read(make: Any, tmp_path: Path) -> None:
    inside = ONE if make is archive else {"0": bytes(16)}
    found = kept(put(tmp_path / "a.pt", make(state(a=A), inside)))
    assert same(found.tensors["a"].read(), torch.zeros(4))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (archive(state(a=A)), "storage '0' is not in the archive"),
        (archive(state(a=A), {"data/0": bytes(15)}), "claims 16 bytes, 15 are there"),
        (archive(state(a=A), ONE, zipfile.ZIP_DEFLATED), "compressed"),
        (archive(state(a=A), {**ONE, "byteorder": b"big"}), "big-endian"),
        (archive(state(a=A), {**ONE, "constants.pkl": b""}), "TorchScript"),
        (archive(state(a=A) + b"N0", ONE), None),
        (archive(state(a=A) + b".N", ONE), "bytes follow its end"),
        (archive(state(a=tensor(storage("../0", 4), 0, (4,), (1,))), ONE), "not in the archive"),
        (archive(state(a=tensor(storage("0", -4), 0, (4,), (1,))), ONE), "without a size"),
        (archive(state(a=tensor(storage("0", 4, "Size"), 0, (4,), (1,))), ONE), "known type"),
        (archive(state(a=tensor(text("0"), 0, (4,), (1,))), ONE), "without storage"),
        (archive(text("0") + b"Q", ONE), "none of a storage"),
        (archive(b")Q", ONE), "none of a storage"),
        (archive(b"(" + b"N" * 5 + b"tQ", ONE), "none of a storage"),
        (archive(b"(" + text("module") + b"N" * 4 + b"tQ", ONE), "none of a storage"),
        (archive(b"(" + text("storage") + b"N" * 4 + b"tQ", ONE), "none of a storage"),
        (archive(storage("0", 4)[:-2] + b"NtQ", ONE), None),
        (archive(storage("0", 4)[:-2] + b")tQ", ONE), "part of another"),
        (archive(nested(legacy(storage("0", 4), {"0": bytes(16)})), ONE), "not read here"),
        (legacy(state(a=A)), "do not belong together"),
        (legacy(state(a=A), {"1": bytes(16)}), "do not belong together"),
        (legacy(state(a=A), {"0": bytes(16), "1": b""}), "do not belong together"),
        (legacy(state(a=A), {"0": bytes(12)}), "another size"),
        (legacy(state(a=A), {"0": bytes(16)})[:-1], "claims 16 bytes, 15"),
        (legacy(state(a=A), {"0": bytes(16)}) + b"x", "1 bytes follow"),
        (
            legacy(state(a=A, b=tensor(storage("0", 5), 0, (1,), (1,))), {"0": bytes(16)}),
            "with two sizes",
        ),
        (
            legacy(state(a=A, b=tensor(storage("0", 4, "IntStorage"), 0, (1,), (1,))), {"0": b""}),
            "with two sizes",
        ),
        (stream(A), "outside of torch.save"),
        (stream(nested(b"")), "truncated"),
        (stream(nested(stream(b"N"))), "holds no storage"),
        (stream(nested(stream(A))), "outside of torch.save"),
        (stream(nested(archive(state(a=A), ONE))), "protocol|opcode"),
        (stream(nested(stream(nested(legacy(storage("0", 4), {"0": bytes(16)}))))), "not read"),
        (stream(blob(b"x")[:-1]), "truncated"),
        (
            stream(b"ctorch.storage\n_load_from_bytes\n" + text("x") + b"\x85R"),
            "no stream of bytes",
        ),
        (stream(b"ctorch.storage\n_load_from_bytes\n)R"), "no stream of bytes"),
    ],
)
def test_files_that_do_not_hold_what_they_claim(
    data: bytes, says: str | None, tmp_path: Path
) -> None:
    path = put(tmp_path / "a.pt", data)
    if says is None:
        read(path)
    else:
        assert re.search(says, refused(path))


SYSTEM = {"little_endian": True}


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([MAGIC, 1002, SYSTEM, {}, []], "unknown version"),
        ([MAGIC, PROTOCOL, {"little_endian": False}, {}, []], "big-endian"),
        ([MAGIC, PROTOCOL, {}, {}, []], "big-endian"),
        ([MAGIC, PROTOCOL, [], {}, []], "unknown version"),
        ([MAGIC, PROTOCOL, SYSTEM, {}, {}], "storages that is none"),
        ([MAGIC, PROTOCOL, SYSTEM, {}, [1]], "storages that is none"),
        ([MAGIC, PROTOCOL, SYSTEM, {}, ["0"]], "do not belong"),
        ([MAGIC, PROTOCOL, SYSTEM, {}], "truncated"),
        ([MAGIC + 1], "no network in it"),
        ([True], "no network in it"),
    ],
)
def test_streams_of_another_kind(parts: list[Any], says: str, tmp_path: Path) -> None:
    data = b"".join(pickle.dumps(part, 2) for part in parts)
    assert re.search(says, refused(put(tmp_path / "a.pt", data)))


def test_archives_whose_table_lies(tmp_path: Path) -> None:
    path, good = tmp_path / "a.pt", archive(state(a=A), ONE)
    kept(put(path, good))
    second = good.index(b"PK\3\4", 4)  # data/0
    entry = good.rindex(b"PK\1\2")  # its line in the table
    assert "where it should be" in refused(put(path, good[:second] + b"XX" + good[second + 2 :]))

    def changed(place: int, value: bytes) -> Path:
        return put(path, good[: entry + place] + value + good[entry + place + len(value) :])

    assert "where it should be" in refused(changed(42, struct.pack("<I", second + 1)))
    assert "where it should be" in refused(changed(42, struct.pack("<I", len(good) - 5)))
    assert "encrypted" in refused(changed(8, b"\1"))
    assert "claims" in refused(changed(20, struct.pack("<I", 8)))
    assert "compressed" in refused(changed(24, struct.pack("<I", 8)))
    assert "claims" in refused(changed(24, struct.pack("<I", 1 << 31)))
    both = struct.pack("<II", len(good), len(good))
    assert "ends after the file" in refused(changed(20, both))
    name = good.rindex(b"archive/data/0")
    twice = good[:name] + b"archive/data.p"
    assert refused(put(path, twice + good[name + 14 :]))


def test_a_member_twice(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("archive/data.pkl", stream(state(a=A)))
        file.writestr("archive/data/0", bytes(16))
        file.writestr("archive/data/0", bytes(16))
    assert "twice" in refused(put(tmp_path / "a.pt", out.getvalue()))


def test_an_archive_under_another_name_and_with_more_beside_it(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, data in (("x/../data.pkl", stream(state(a=A))), ("x/../data/0", bytes(16))):
            file.writestr(name, data)
        file.writestr("/etc/passwd", b"root")
    found = kept(put(tmp_path / "a.pt", out.getvalue()))  # names are looked up, never opened
    assert list(found.tensors) == ["a"] and sorted(os.listdir(tmp_path)) == ["a.pt"]


GOOD = {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"dtype": "F4"}, "numbers of type 'F4'"),
        ({"shape": [2, 3]}, "claims 24 bytes"),
        ({"shape": [3]}, "other sizes than its bytes"),
        ({"shape": [0]}, "other sizes than its bytes"),
        ({"shape": [2.0, 2]}, "no integers"),
        ({"shape": [-2, -2]}, "no integers"),
        ({"shape": [1] * 17}, "ends after the file"),
        ({"data_offsets": [0, 17]}, "ends after the file"),
        ({"data_offsets": [-16, 0]}, "ends after the file"),
        ({"data_offsets": [16, 0]}, "ends after the file"),
        ({"data_offsets": [0, 10 << 30]}, "ends after the file"),
        ({"data_offsets": [0]}, "ends after the file"),
        ({"data_offsets": "ab"}, "none of its table.s entries"),
        ({"shape": 3}, "none of its table.s entries"),
        ({"dtype": []}, "none of its table.s entries"),
    ],
)
def test_safetensors_that_lie(entry: Any, says: str, tmp_path: Path) -> None:
    for table, wanted in (({"a": GOOD["a"] | entry}, says), (GOOD, None)):
        head = json.dumps(table).encode()
        data = struct.pack("<Q", len(head)) + head + bytes(16)
        path = put(tmp_path / "a.safetensors", data)
        if wanted is None:
            assert same(kept(path).tensors["a"].read(), torch.zeros(2, 2))
        else:
            assert re.search(wanted, refused(path))


def test_how_long_a_table_of_safetensors_may_be(tmp_path: Path) -> None:
    empty = b'{"a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}'
    path = tmp_path / "a.safetensors"
    most = 1 << 24
    for size, says in ((len(empty), ""), (most, ""), (most + 1, "table of"), (100, "table of")):
        there = empty + b" " * (max(size, len(empty)) - len(empty))
        there = there[:-3] if size == 100 else there  # cut in the spaces at its end
        put(path, struct.pack("<Q", size) + there)
        if says:
            assert says in refused(path)
        else:
            assert list(kept(path).tensors) == ["a"]


def test_tables_of_safetensors_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for size in (1 << 63, (1 << 24) + 1, 100):
        assert "table of" in refused(put(path, struct.pack("<Q", size) + b"{" + bytes(9)))
    for head in (b"{", b"{]", b'{"a": 1}', b"{" + b'"a":{' * 100_000, b"{}"):
        refused(put(path, struct.pack("<Q", len(head)) + head))
