"""`reg-engine convert`: what it prints, and its errors in one paragraph."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from edm2_cases import small as small_edm2
from test_convert_door import snapshot
from test_models_dit import small

from reg_engine import InputError, sample
from reg_engine.cli import cli
from reg_engine.models import load_model


def run(*words: object) -> str:
    result = CliRunner().invoke(cli, ["convert", *map(str, words)])
    if result.exception:
        raise result.exception
    return result.output


def test_it_says_what_it_found(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    torch.save({"ema": small().state_dict()}, tmp_path / "a.pt")
    said = run(tmp_path / "a.pt", out, "--model", "dit", "--heads", 3, "--dtype", "float16")
    count = sum(value.numel() for value in small().state_dict().values())
    assert said.splitlines() == [
        f"DiT of 2 blocks of 24, 8x8: {count:,} parameters in 32 tensors, from 'ema'",
        "dtype: float16",
        f"weights: {out} ({out.stat().st_size / 1e6:.1f} MB)",
    ]
    samples = sample(load_model(out), [1], steps=2, scale=2.0, progress=False).samples
    assert samples.shape == (1, 4, 8, 8)


def test_it_says_what_it_left_out(tmp_path: Path) -> None:
    said = run(snapshot(tmp_path, small_edm2()), tmp_path / "out.safetensors")
    assert said.startswith("EDM2, 8x8, 5 classes: ") and "name said" not in said
    assert "not written, sampling does not ask it: logvar_linear.weight" in said


def test_json(tmp_path: Path) -> None:
    torch.save(small().state_dict(), tmp_path / "sit.pt")
    out = tmp_path / "out.safetensors"
    found = json.loads(run(tmp_path / "sit.pt", out, "--heads", 3, "--json"))
    assert found["architecture"] == "sit" and found["description"]["prediction"] == "flow"
    assert found["path"] == str(out) and found["dropped"] == [] and found["by_name"]
    said = run(tmp_path / "sit.pt", out, "--heads", 3)
    assert "the file's name said which; --model goes before" in said
    assert "name said" not in run(tmp_path / "sit.pt", out, "--heads", 3, "--model", "sit")


def test_errors(tmp_path: Path) -> None:
    torch.save(small().state_dict(), tmp_path / "a.pt")
    out = tmp_path / "out.safetensors"
    for words, says in (
        ([tmp_path / "a.pt", out], "--model: 'a.pt' has the tensors of DiT and of SiT"),
        ([tmp_path / "a.pt", out, "--model", "dit"], "--heads: a transformer of width 24"),
        ([tmp_path / "a.pt", out, "--model", "x"], "--model: unknown name 'x'"),
        ([tmp_path / "a.pt", out, "--dtype", "x"], "--dtype: unknown name 'x'"),
        ([tmp_path / "b.pt", out], "IN: .*No such file"),
        ([tmp_path / "a.pt", tmp_path / "b.pt"], "OUT: is "),
    ):
        with pytest.raises(InputError, match=says):
            run(*words)
    assert not out.exists()
