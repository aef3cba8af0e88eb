"""Where launch parameters come from."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from reg_engine.kernels import tuning  # noqa: E402

TILES = {f"attention_dual_{width}_{bits}" for width in (64, 96, 128, 160, 256) for bits in (16, 32)}
OPS = {"combine", "guided_step", "probe", "reduce", "reduce_blocks"}
OPS |= {"norm_dual", "activation_dual", *TILES}
FILES = sorted(tuning.FOLDER.glob("*.json"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files for this test alone."""
    for cached in (tuning.launch_parameters, tuning._file):
        cached.cache_clear()
    monkeypatch.setattr(tuning, "FOLDER", tmp_path)
    monkeypatch.setattr(tuning, "device_name", lambda device: "some_gpu")
    yield tmp_path
    for cached in (tuning.launch_parameters, tuning._file):
        cached.cache_clear()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files(path: Path) -> None:
    """Every file names ops that are there and launches that are possible."""
    parameters = json.loads(path.read_text(encoding="utf-8"))
    assert set(parameters) == OPS if path.stem == tuning.DEFAULT else set(parameters) <= OPS
    for op, launch in parameters.items():
        if op in TILES:
            assert set(launch) == {"BLOCK_M", "BLOCK_N", "num_warps", "num_stages"}
            assert all(launch[side] in (16, 32, 64, 128) for side in ("BLOCK_M", "BLOCK_N"))
            assert launch["num_warps"] in (4, 8) and launch["num_stages"] in (1, 2, 3, 4)
            continue
        assert set(launch) <= {"BLOCK", "PARTS", "num_warps", "num_stages"}
        for value in (launch["BLOCK"], launch["num_warps"]):
            assert value > 0 and value & (value - 1) == 0
        # The margin of strides.INT32_LIMIT.
        assert launch["BLOCK"] * launch.get("PARTS", 1) <= 2**16
        assert launch["num_warps"] <= 32


def test_a_device_without_file_gets_the_default_and_a_line_in_the_log(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "default.json").write_text('{"probe": {"BLOCK": 64}, "reduce": {"BLOCK": 32}}')
    with caplog.at_level(logging.INFO):
        for op, block in (("probe", 64), ("reduce", 32), ("probe", 64)):
            assert tuning.launch_parameters(op, torch.device("cpu"))["BLOCK"] == block
    assert [record.getMessage() for record in caplog.records] == [
        "no some_gpu.json: default launch parameters"
    ]


def test_the_file_of_a_device_wins(folder: Path) -> None:
    (folder / "default.json").write_text('{"probe": {"BLOCK": 64, "num_warps": 4}, "reduce": {}}')
    (folder / "some_gpu.json").write_text('{"probe": {"BLOCK": 128}}')
    found = tuning.launch_parameters("probe", torch.device("cpu"))
    assert found == {"BLOCK": 128, "num_warps": 4, **tuning.OPTIONS}
    assert tuning.launch_parameters("reduce", torch.device("cpu")) == tuning.OPTIONS


def test_names_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tuning.device_name(torch.device("cpu")) == "cpu"
    names = {"NVIDIA H200": "nvidia_h200", "Quadro (TM) 8000 ": "quadro_tm_8000"}
    for name, file in names.items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert tuning.device_name(torch.device("cuda", 0)) == file
