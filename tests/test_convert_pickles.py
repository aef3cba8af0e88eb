"""Honest checkpoints, bit for bit; archives and streams that do not hold what they claim."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import resource
import struct
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from pickle_cases import (
    kept,
    legacy,
    refused,
    same,
    state,
    storage,
    stream,
    tensor,
)
from torch import nn

from reg_engine.convert.pickles import read
from reg_engine.convert.tensors import DTYPES, Stored


def tensors() -> dict[str, torch.Tensor]:
    """All dtypes, views of one storage, a parameter, an empty tensor, a number."""
    base = torch.randn(6, 8)
    found = {"base": base, "turned": base.t(), "part": base[1:5:2, 3:], "p": nn.Parameter(base * 2)}
    found |= {"empty": torch.zeros(0, 3), "number": torch.tensor(2.5), "last": base[5, 7]}
    for dtype in DTYPES.values():
        found[str(dtype)] = torch.arange(5).to(dtype)
    return found


def saved(value: Any, how: str) -> bytes:
    out = io.BytesIO()
    if how == "pickle":
        pickle.dump(value, out)
    else:
        torch.save(value, out, _use_new_zipfile_serialization=how == "zip")
    return out.getvalue()


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_state_dicts_bit_for_bit(how: str, kind: Any, tmp_path: Path) -> None:
    wanted = tensors()
    found = kept(put(tmp_path / "a.pt", saved(kind(wanted), how)))
    assert list(found.tensors) == list(wanted) and found.place == ""
    for name, value in wanted.items():
        assert same(found.tensors[name].read(), value), name


def test_safetensors_bit_for_bit(tmp_path: Path) -> None:
    wanted = {name: value.detach().clone().contiguous() for name, value in tensors().items()}
    data = safetensors.torch.save(wanted, metadata={"format": "pt"})
    found = kept(put(tmp_path / "a.safetensors", data))
    assert set(found.tensors) == set(wanted)
    for name, value in wanted.items():
        assert same(found.tensors[name].read(), value), name


@pytest.mark.parametrize("how", ["zip", "legacy"])
def test_a_training_checkpoint(how: str, tmp_path: Path) -> None:
    """As DiT's and SiT's training writes it: two networks, the optimizer, argparse's result."""
    net = nn.Sequential(OrderedDict(fc=nn.Linear(3, 4), norm=nn.BatchNorm1d(4)))
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    average = {name: value * 0.5 for name, value in net.state_dict().items()}
    args = argparse.Namespace(model="DiT-XL/2", image_size=256)
    whole = {"model": net.state_dict(), "ema": average, "opt": optimizer.state_dict(), "args": args}
    found = kept(put(tmp_path / "a.pt", saved(whole, how)))
    assert found.place == "ema" and list(found.tensors) == list(average)
    assert all(same(found.tensors[name].read(), average[name]) for name in average)
    assert found.tree["args"].state == vars(args)
    step = found.tree["opt"]["state"][0]["exp_avg"].read()
    assert same(step, optimizer.state_dict()["state"][0]["exp_avg"])


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_every_truncation_is_one_error(how: str, tmp_path: Path) -> None:
    data = saved({"a": torch.arange(30.0), "b": torch.ones(3, dtype=torch.bfloat16)}, how)
    path = tmp_path / "a.pt"
    for end in [*range(0, len(data), 7), len(data) - 1]:
        refused(put(path, data[:end]))
    refused(put(path, data + b"x"))


def test_every_truncation_of_safetensors(tmp_path: Path) -> None:
    data = safetensors.torch.save({"a": torch.arange(30.0), "b": torch.ones(3)})
    for end in range(0, len(data)):
        refused(put(tmp_path / "a.safetensors", data[:end]))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    for name in ("pipe", "folder", "loop", "missing"):
        refused(tmp_path / name)
    assert "no regular file" in refused(tmp_path / "pipe")
    assert "no regular file" in refused(Path("/dev/zero")) if Path("/dev/zero").exists() else True
    (tmp_path / "link.pt").symlink_to("real.pt")
    put(tmp_path / "real.pt", saved({"a": torch.ones(2)}, "zip"))
    assert list(kept(tmp_path / "link.pt").tensors) == ["a"]


@pytest.mark.parametrize("data", [b"", b"x", b"\0" * 600, b"hello world" * 9, b"\x93NUMPY" * 9])
def test_other_files(data: bytes, tmp_path: Path) -> None:
    refused(put(tmp_path / "a.pt", data))


def test_a_large_file_is_not_read_before_its_tensors_are(tmp_path: Path) -> None:
    """1 GB that takes no room on the disk: a hole where the storage lies."""
    size = 1 << 30
    path = put(tmp_path / "a.pkl", b"")
    inner = legacy(storage("0", size // 4), {"0": b""})
    inner = inner[:-8] + struct.pack("<q", size // 4)
    body = state(a=tensor(b"HOLE", size // 8, (2, 2), (1 << 20, 1)))
    before, _, after = stream(body).partition(b"HOLE")
    before += b"ctorch.storage\n_load_from_bytes\n\x8e" + struct.pack("<Q", len(inner) + size)
    with path.open("wb") as file:
        file.write(before + inner)
        file.seek(size, 1)
        file.write(b"\x85R" + after)
    begun, used = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = kept(path).tensors["a"]
    assert same(found.read(), torch.zeros(2, 2))
    assert time.process_time() - begun < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 50_000  # kB


@pytest.mark.slow
def test_archives_beyond_four_gigabytes(tmp_path: Path) -> None:
    """Their table has 64-bit places; the file is a hole but for one number."""
    path = tmp_path / "a.pt"
    wanted = {f"a{n}": torch.empty(1 << 28, dtype=torch.float16) for n in range(9)}
    with torch.serialization.skip_data():
        torch.save(wanted, path)
    assert path.stat().st_size > 9 << 29
    place = torch._C.PyTorchFileReader(str(path)).get_record_offset("data/8")
    with path.open("r+b") as file:
        file.seek(place + 2 * 1000)
        file.write(torch.tensor(3.5, dtype=torch.float16).numpy().tobytes())
    found = read(path)
    assert found["a8"].storage.nbytes == 1 << 29
    end = found["a8"].storage
    part = Stored(end, torch.float16, 999, (3,), (1,)).read()
    assert part.tolist() == [0.0, 3.5, 0.0]
