"""The options of `reg-engine generate`: which go together, and what of them makes the job."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from test_cli_generate import SEEDS, call

import reg_engine

bulk = importlib.import_module("reg_engine.cli.bulk")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--engine", "rey"], "ray"),
        (["--workers", "2"], "--workers: does nothing with --engine process"),
        (["--gpus-per-worker", "1"], "--gpus-per-worker"),
        (["--engine", "ray", "--workers", "2:1"], "are 2 to 1"),
        (["--engine", "ray", "--workers", "x"], "MIN:MAX"),
        (["--engine", "ray", "--shard", "0/2"], "--shard: does nothing with --engine ray"),
        (["--engine", "ray", "--address", "ray://h:1"], "ray job submit"),
        (["--images", "3"], "--images"),
        (["--dry-run", "--verify"], "--verify"),
        (["--dry-run", "--metrics", "m.prom"], "--metrics"),
        (["--metrics", "m.txt"], ".prom"),
        (["--engine", "ray", "--out", "s3://bucket/x"], "Mount it"),
        (["--verify"], "holds no job"),
        (["--verify", "--images", "-1"], "job"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    tmp_path: Path, words: list[str], says: str
) -> None:
    found = call(*SEEDS, *words, out=tmp_path / "o", ok=False)
    assert isinstance(found.exception, reg_engine.InputError), found.output
    assert says in str(found.exception) and not (tmp_path / "o" / "000000").exists()


def test_paths_for_a_process_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("m.safetensors", "plan.json", "a.safetensors"):
        (tmp_path / name).touch()
    given = {"model": "m.safetensors", "plan": "plan.json", "prompts": None, "vae": "gone"}
    given["adapter"] = "a.safetensors"
    found = bulk.absolute({**given, "out": "o", "labels": "file:l.txt", "steps": 3})
    here = {name: str(tmp_path / name) for name in ("m.safetensors", "plan.json", "o")}
    assert (found["model"], found["plan"], found["out"]) == tuple(here.values())
    assert found["labels"] == f"file:{tmp_path / 'l.txt'}"
    assert found["adapter"] == str(tmp_path / "a.safetensors")
    assert (found["vae"], found["prompts"], found["steps"]) == ("gone", None, 3)
    (tmp_path / "mnist").mkdir()  # whatever lies here, the name is the packaged model's
    packaged = {"model": "mnist", "adapter": "mnist", "plan": "mnist"}
    again = bulk.absolute({**given, **packaged, "out": "o", "labels": "uniform"})
    assert (again["model"], again["adapter"], again["labels"]) == ("mnist", "mnist", "uniform")
    assert again["plan"] == str(tmp_path / "mnist")


def test_a_renamed_folder_of_a_vae_or_pipeline_is_the_same_job(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    import shutil

    import tiny_pipelines as tiny
    from test_models_dit import small
    from test_models_dit_guided import saved
    from tiny_parts import vae

    from reg_engine.models.latents import SD_LATENTS

    (tmp_path / "p.txt").write_text("a cat\n")
    tiny.sd().save_pretrained(tmp_path / "pipe")
    vae().save_pretrained(tmp_path / "vae")
    saved(tmp_path / "dit.safetensors", small(), latents=SD_LATENTS.described())
    there = tmp_path / "elsewhere"
    there.mkdir()
    for name in ("pipe", "vae"):
        shutil.copytree(tmp_path / name, there / f"{name}2")
    for name in ("dit.safetensors", "p.txt"):
        shutil.copy(tmp_path / name, there / f"2{name}")
    for kind in ("prompts", "latents"):
        for number, (folder, two) in enumerate(((tmp_path, ""), (there, "2"))):
            words: list[object] = ["--seeds", "0-3", "--rectify", "none"]
            if kind == "prompts":
                words += ["--model", folder / f"pipe{two}", "--prompts", folder / f"{two}p.txt"]
            else:
                words += [
                    "--model",
                    folder / f"{two}dit.safetensors",
                    "--vae",
                    folder / f"vae{two}",
                ]
            found = call(*words, out=tmp_path / kind).output
            assert f"{1 - number} of 1 shards to make" in found
