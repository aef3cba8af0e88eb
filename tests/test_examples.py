"""Every example runs as it stands, on a tiny pipeline in the place of the one it names."""

from __future__ import annotations

import runpy
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from reg_engine import load_classifier
from reg_engine.metrics import label_agreement

FOLDER = Path(__file__).resolve().parent.parent / "examples"
# What each leaves behind; of prompts with the tiny pipeline's own, smaller size.
PIPELINES = {
    "sd15": ("sd", "StableDiffusionPipeline", ["sd15_own_call.png", "sd15_engine.png"]),
    "sdxl": ("sdxl", "StableDiffusionXLPipeline", ["sdxl.png"]),
    "sd3": ("sd3", "StableDiffusion3Pipeline", ["sd3.png"]),
    "flux": ("flux", "FluxPipeline", ["flux.png"]),
    "wan": ("wan", "WanPipeline", ["wan.gif"]),
    "dit": ("dit", "DiTPipeline", ["dit_cfg_207.png", "dit_vjp_974.png"]),
}
LOOPS = ("own_loop", "k_diffusion")


def test_all_are_run_and_short() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == {*PIPELINES, *LOOPS}
    assert all(len(path.read_text("utf-8").splitlines()) <= 40 for path in FOLDER.glob("*.py"))


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    import tiny_pipelines

    build, kind, files = PIPELINES[name]
    pipe = getattr(tiny_pipelines, build)()
    call = type(pipe).__call__

    size = {} if name == "dit" else {"height": 16, "width": 16}
    if name in ("flux", "wan"):
        size["max_sequence_length"] = 16
    if name == "wan":
        size |= {"height": 64, "width": 64, "num_frames": 5}

    @wraps(call)  # what it takes is looked at
    def smaller(self: Any, *args: Any, **given: Any) -> Any:
        return call(self, *args, **{**given, "num_inference_steps": 3, **size})

    monkeypatch.setattr(type(pipe), "__call__", smaller)
    monkeypatch.setattr(getattr(diffusers, kind), "from_pretrained", lambda *a, **k: pipe)
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(FOLDER / f"{name}.py"))
    for file in files:
        with Image.open(tmp_path / file) as picture:
            assert min(picture.size) >= 16


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path(str(FOLDER / f"{name}.py"))
    agreed = label_agreement(load_classifier("mnist"), found["x"], torch.arange(10))
    assert agreed.share >= 0.9 and found["guide"].stats.nfe < 80
