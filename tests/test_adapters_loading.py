"""Folders and hub ids as models, without a network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import tiny_pipelines as tiny
import torch
from diffusers import DDIMScheduler
from family_cases import CASES

import reg_engine
from reg_engine import InputError, denoiser_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DiT pipeline as save_pretrained writes it, with a scheduler of its own settings."""
    path = tmp_path_factory.mktemp("pipelines") / "dit"
    pipe = tiny.dit()
    pipe.scheduler = DDIMScheduler(clip_sample=False, beta_end=0.015)
    pipe.save_pretrained(path)
    return path


def answer(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(CASES["dit"].noise(), 400.0, torch.tensor([1, 2]))


def wanted(**options: Any) -> torch.Tensor:
    scheduler = DDIMScheduler(clip_sample=False, beta_end=0.015)
    return answer(denoiser_of(tiny.dit().transformer, scheduler=scheduler, **options))


def test_a_folder_is_its_pipeline(folder: Path) -> None:
    model = denoiser_of(folder, local_files_only=True)
    assert torch.equal(answer(model), wanted())
    assert not any(module.training for module in model.modules)
    choices = {"scale": 3.0, "rectify": None, "steps": 2, "seeds": [0], "progress": False}
    found = [reg_engine.sample(m, 3, **choices).samples for m in (str(folder), model)]
    assert torch.equal(*found)


def test_a_folder_of_a_network(folder: Path) -> None:
    network = folder / "transformer"
    with pytest.raises(InputError, match="scheduler: is None: a DiTTransformer2DModel"):
        denoiser_of(network)
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    assert torch.equal(answer(denoiser_of(network, scheduler=scheduler)), wanted())


def test_a_scheduler_in_the_place_of_the_folders(folder: Path) -> None:
    scheduler = DDIMScheduler(clip_sample=False, beta_end=0.03)
    found = answer(denoiser_of(folder, scheduler=scheduler))
    assert torch.equal(found, answer(denoiser_of(tiny.dit().transformer, scheduler=scheduler)))
    assert not torch.equal(found, wanted())


def test_options_reach_from_pretrained(folder: Path) -> None:
    model = denoiser_of(folder, torch_dtype=torch.float16)
    assert model.dtype == torch.float16
    with pytest.raises(InputError, match="use_safetensors: is not known to denoiser_of. Known: to"):
        denoiser_of(folder, use_safetensors=False)
    with pytest.raises(InputError, match="'.*dit' cannot be loaded .*fp16.*with safetensors"):
        denoiser_of(folder, variant="fp16")


def test_no_pickle_is_read(tmp_path: Path) -> None:
    tiny.dit().save_pretrained(tmp_path, safe_serialization=False)
    assert list((tmp_path / "transformer").glob("*.bin"))
    with pytest.raises(InputError, match="cannot be loaded .*safetensors"):
        denoiser_of(tmp_path)


def changed(folder: Path, tmp_path: Path, **parts: Any) -> Path:
    """The folder's index with other parts, alone."""
    index = json.loads((folder / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps(index | parts))
    return tmp_path


def test_no_code_but_that_of_diffusers_runs(folder: Path, tmp_path: Path) -> None:
    """A module of the folder's own is not imported."""
    (tmp_path / "mine.py").write_text("raise SystemExit('it ran')")
    where = changed(folder, tmp_path, transformer=["mine", "MyTransformer"])
    with pytest.raises(InputError, match="holds a MyTransformer, of no known family. Wrap it"):
        denoiser_of(where)


def test_what_a_folder_may_lack(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither model_index.json nor config.json"):
        denoiser_of(tmp_path)
    where = changed(folder, tmp_path, transformer=[None, None])
    with pytest.raises(InputError, match="the pipeline has no unet and no transformer"):
        denoiser_of(where)
    where = changed(folder, tmp_path, transformer_2=["diffusers", "DiTTransformer2DModel"])
    with pytest.raises(InputError, match="has a transformer_2 beside its transformer"):
        denoiser_of(where)
    where = changed(folder, tmp_path, transformer=["diffusers", "AutoencoderKL"])
    with pytest.raises(InputError, match="holds a AutoencoderKL, of no known family"):
        denoiser_of(where)
    where = changed(folder, tmp_path)
    with pytest.raises(InputError, match="cannot be loaded .*Give a folder that save_pretrained"):
        denoiser_of(where)
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(InputError, match="cannot be loaded"):
        denoiser_of(tmp_path)


def test_what_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'mnist' is no folder, and no hub id .owner/name.*load_m"):
        reg_engine.sample("mnist", 3)
    with pytest.raises(InputError, match="is no folder, and no hub id"):
        denoiser_of(tmp_path / "none" / "of" / "these")
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(InputError, match="is a file. Give its folder; .* goes through load_model"):
        denoiser_of(file)


def test_a_hub_id_without_a_network(tmp_path: Path) -> None:
    remedy = "Check the id; .*hf download nobody/nothing"
    for options in ({}, {"torch_dtype": torch.float16}):
        with pytest.raises(InputError, match=f"'nobody/nothing' cannot be loaded .*{remedy}"):
            denoiser_of("nobody/nothing", local_files_only=True, cache_dir=tmp_path, **options)


def test_a_hub_id_in_the_cache(folder: Path, tmp_path: Path) -> None:
    """As huggingface_hub lays out what was downloaded."""
    home = tmp_path / "models--someone--dit"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit := 40 * "a")
    (home / "snapshots").mkdir()
    (home / "snapshots" / commit).symlink_to(folder)
    model = denoiser_of("someone/dit", local_files_only=True, cache_dir=tmp_path)
    assert torch.equal(answer(model), wanted())


def test_without_diffusers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(InputError, match="a folder or hub id needs diffusers .*pip install"):
        denoiser_of(folder)


def test_diffusers_is_imported_late() -> None:

    code = "import sys, reg_engine; sys.exit('diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_learned_variance_is_known_and_used(folder: Path) -> None:
    """DiT returns it beside the noise, as a wrapper by hand hands both on."""
    model = denoiser_of(folder, local_files_only=True)
    assert model.learned_variance
    assert not denoiser_of(tiny.sd().unet, scheduler=DDIMScheduler()).learned_variance
    transformer = tiny.dit().transformer

    def both(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        return transformer(x, timestep=t, class_labels=cond, return_dict=False)[0]

    by_hand = reg_engine.Denoiser(
        both, "epsilon", model.schedule, (4, 8, 8), 1000, num_classes=1000, learned_variance=True
    )
    choices = {"scale": 3.0, "rectify": None, "steps": 3, "seeds": [0, 1], "progress": False}
    found = {
        variance: [
            reg_engine.sample(
                m, 3, solver="ddpm", solver_options={"variance": variance}, **choices
            ).samples
            for m in (model, by_hand)
        ]
        for variance in ("small", "learned")
    }
    assert all(torch.equal(*pair) for pair in found.values())
    assert (found["small"][0] - found["learned"][0]).abs().max() > 1e-2
