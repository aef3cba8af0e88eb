"""Files that want to run something, or to take everything: each is refused, and nothing runs."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from malicious_cases import CALLS, CANARY, PAYLOADS, SMALL, STORED, TRICKS, WRAPPERS, modules
from pickle_cases import (
    archive,
    legacy,
    name,
    nested,
    refused,
    state,
    storage,
    stream,
    tensor,
    text,
    watched,
)

from reg_engine import InputError
from reg_engine.convert.states import state_of


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_nothing_runs(payload: str, wrapper: str, folder: Path) -> None:
    path = folder / "a.pt"
    path.write_bytes(WRAPPERS[wrapper](PAYLOADS[payload]))
    refused(path)
    assert os.listdir(folder) == ["a.pt"]


def test_the_payloads_do_run_elsewhere(folder: Path) -> None:
    """The corpus bites: the standard library runs what it should, and the watch sees it."""
    with watched() as seen:
        pickle.loads(stream(CALLS["os"]))
    assert (folder / CANARY).exists() and any("os.system" in event for event in seen)
    (folder / CANARY).unlink()
    for payload in ("posix", "exec", "stacked", "memo", "map"):
        with watched() as seen:
            made = pickle.loads(stream(PAYLOADS[payload]))
            list(made) if payload == "map" else made
        assert (folder / CANARY).exists() and seen
        (folder / CANARY).unlink()
    torch.load(_file(folder, archive(state(a=CALLS["os"]))), weights_only=False)
    assert (folder / CANARY).exists()


def _file(folder: Path, data: bytes) -> Path:
    (folder / "a.pt").write_bytes(data)
    return folder / "a.pt"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (stream(CALLS["os"]), "it names 'os.system', which is not read here"),
        (stream(TRICKS["dotted"]), "it names 'torch.serialization.os.system'"),
        (stream(TRICKS["inst"]), r"opcode 'i' \(0x69\) is not read here"),
        (stream(TRICKS["reduce of a text"]), "has no name, or without arguments"),
    ],
)
def test_the_reason_is_said(data: bytes, says: str, folder: Path) -> None:
    with pytest.raises(InputError, match=says):
        state_of(_file(folder, data))


GB = 10 << 30
CLAIMS = {
    "storage": archive(state(a=tensor(storage("0", GB // 4), 0, (1,), (1,))), STORED),
    "tensor": archive(state(a=tensor(storage("0", 1), 0, (GB,), (1,))), STORED),
    "expanded": archive(state(a=tensor(storage("0", 1), 0, (GB,), (0,))), STORED),
    "offset": archive(state(a=tensor(storage("0", 1), GB, (1,), (1,))), STORED),
    "legacy": legacy(state(a=tensor(storage("0", GB // 4), 0, (GB // 4,), (1,))), {})[:-4]
    + pickle.dumps(["0"], 2)
    + struct.pack("<q", GB // 4)
    + bytes(16),
    "nested": stream(
        state(a=tensor(nested(legacy(storage("0", GB // 4), {"0": bytes(16)})), 0, (1,), (1,)))
    ),
    "bytes": stream(state(a=b"\x8e" + struct.pack("<Q", GB) + bytes(16))),
    "bytes, 32 bits": stream(state(a=b"B\xff\xff\xff\xff" + bytes(16))),
    "text": stream(state(a=b"\x8d" + struct.pack("<Q", GB) + bytes(16))),
    "frame": b"\x80\4\x95" + struct.pack("<Q", GB) + b"N.",
    "memo": stream(b"Nr\xff\xff\xff\xff" + b"0N"),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_ten_gigabytes_are_claimed(claim: str, folder: Path) -> None:
    refused(_file(folder, CLAIMS[claim]))


def laughing(levels: int, wide: int) -> bytes:
    """A list of ten lists of ten lists ..., each the same."""
    body = b"]q\0"
    for level in range(levels):
        body += b"](" + (b"h" + bytes([level])) * wide + b"eq" + bytes([level + 1])
    return b"(" + body + b"t0"


BOMBS = {
    "lists": laughing(60, 10) + state(x=b"N"),
    "lists as a name": laughing(40, 10)
    + name("torch_utils.persistence", "_reconstruct_persistent_obj")
    + state(type=text("class"), class_name=b"h\x28", state=b"}")
    + b"\x85R",
    "modules": modules(60, 10),
    "modules with parts": modules(6, 9, leaf=state(**{f"n{n}": b"N" for n in range(100)})),
    "one in itself": b"}q\0" + text("ema") + b"h\0s",
    "module in itself": name("argparse", "Namespace")
    + b")Rq\0}"
    + text("_modules")
    + b"}"
    + text("a")
    + b"h\0ssb",
    "opcodes": b"N0" * 300_000 + b"N",
    "names": name("collections", "OrderedDict") * 300_000,
    "deep tuple": b"N" + b"\x85" * 200_000,
    "deep list": b"]" * 100_000 + b"a" * 99_999,
    "deep ema": (b"}" + text("ema")) * 20_000 + b"N" + b"s" * 20_000,
    "marks": b"(" * 300_000,
    "long arguments": b"("
    + b"N" * 50_000
    + b"tq\0"
    + b"0"
    + name("collections", "OrderedDict")
    + b"q\1"
    + (b"h\1h\0R0" * 10_000),
    "texts": (text("a" * (1 << 20)) + b"0") * 20,
    "long name": state(**{"a" * 600: SMALL}),
    "memo": b"".join(b"Nr" + struct.pack("<I", n * 1000) + b"0" for n in range(100_000)) + b"N",
    "wide sizes": tensor(nested(b""), 0, tuple(range(2000)), (1,)),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs(bomb: str, folder: Path) -> None:
    refused(_file(folder, stream(BOMBS[bomb])))


def test_bombs_of_tensors(folder: Path) -> None:
    """Names by the thousand of the same megabyte would be written out whole."""
    held = b"".join(text(f"n{n}") + b"h\0" for n in range(1000))
    one = tensor(storage("0", 1 << 18), 0, (1 << 18,), (1,))
    data = archive(one + b"q\0" + b"0}(" + held + b"u", {"data/0": bytes(1 << 20)})
    assert "far more than the file" in refused(_file(folder, data))
    assert "a name of more than" in refused(
        _file(folder, archive(state(**{"a" * 600: SMALL}), {"data/0": bytes(16)}))
    )


def test_zip_bombs(folder: Path) -> None:
    body = state(a=tensor(storage("0", 1 << 26), 0, (1 << 26,), (1,)))
    data = archive(body, {"data/0": bytes(1 << 28)}, zipfile.ZIP_DEFLATED)
    assert len(data) < 1 << 20 and "compressed" in refused(_file(folder, data))
