"""Pipelines by name: no network, no pickles."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="diffusers is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

import tiny_pipelines  # noqa: E402

from reg_engine import InputError  # noqa: E402
from reg_engine.integrations.diffusers import load_pipeline  # noqa: E402


def test_a_folder_and_what_is_not_read(tmp_path: Path) -> None:
    tiny_pipelines.dit().save_pretrained(tmp_path)
    assert type(load_pipeline(str(tmp_path))).__name__ == "DiTPipeline"
    weights = next((tmp_path / "transformer").glob("*.safetensors"))
    weights.rename(weights.with_name("diffusion_pytorch_model.bin"))
    with pytest.raises(InputError, match="cannot be loaded.*with safetensors"):
        load_pipeline(str(tmp_path))


def test_an_id_without_a_network() -> None:
    with pytest.raises(InputError, match="download it before"):
        load_pipeline("nobody/nothing-here", local_files_only=True)
    with pytest.raises(InputError, match="no hub id"):
        load_pipeline("a b c")
