"""`reg-engine sample --prompt` and `reg-engine show` on a pipeline in a folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

pytest.importorskip("diffusers", reason="diffusers is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

import tiny_pipelines  # noqa: E402

from reg_engine import Damping  # noqa: E402
from reg_engine.cli import cli  # noqa: E402
from reg_engine.errors import InputError  # noqa: E402
from reg_engine.integrations.diffusers import load_pipeline, sample  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("models") / "tiny-sd"
    tiny_pipelines.sd().save_pretrained(path)
    return str(path)


def run(*words: Any) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def prompted(folder: str, out: Path, *more: Any) -> Result:
    words = ["sample", "--model", folder, "--prompt", "a cat", "--prompt", "two dogs"]
    words += ["--negative", "bad", "--size", 16, "--steps", 2, "--scale", 3, "--no-progress"]
    return run(*words, "--out-dir", out, *more)


def test_a_picture_for_each_prompt_and_seed(folder: str, tmp_path: Path) -> None:
    done = prompted(folder, tmp_path, "--per-label", 2, "--rectify", "vjp", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    names = ["a_cat_00000.png", "a_cat_00001.png", "two_dogs_00002.png", "two_dogs_00003.png"]
    assert report == {"pictures": [str(tmp_path / name) for name in names], "made": 4}
    choices = {"negative": "bad", "scale": 3.0, "rectify": "vjp", "steps": 2, "size": 16}
    out = sample(load_pipeline(folder), "two dogs", seeds=[3], progress=False, **choices)
    with Image.open(tmp_path / names[3]) as picture:
        found = torch.tensor(list(picture.getdata())).reshape(16, 16, 3)
    assert (found - out.images[0].int()).abs().max() <= 1


def test_what_is_there_with_the_same_settings_stays(folder: str, tmp_path: Path) -> None:
    assert prompted(folder, tmp_path).exit_code == 0
    kept, again = tmp_path / "a_cat_00000.png", tmp_path / "two_dogs_00001.png"
    before = kept.read_bytes()
    again.unlink()
    os.utime(kept, (1, 1))
    assert prompted(folder, tmp_path).stdout.splitlines()[-1] == "1 made"
    assert kept.stat().st_mtime == 1 and kept.read_bytes() == before and again.is_file()
    assert prompted(folder, tmp_path, "--rectify", "none").stdout.splitlines()[-1] == "2 made"
    assert kept.read_bytes() != before


def test_a_picture_says_how_it_was_made(folder: str, tmp_path: Path) -> None:
    prompted(folder, tmp_path)
    done = run("show", tmp_path / "two_dogs_00001.png", "--json")
    found = json.loads(done.stdout)
    assert found["prompt"] == "two dogs" and found["seed"] == 1 and found["model"] == "tiny-sd"
    assert (found["steps"], found["solver"], found["negative"]) == (2, None, "bad")
    assert "--prompt 'a cat' --prompt 'two dogs'" in found["command"]
    text = run("show", tmp_path / "two_dogs_00001.png").output
    assert ["prompt", "two", "dogs"] in [line.split() for line in text.splitlines()]


def test_prompts_from_a_file(folder: str, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    assert prompted(folder, tmp_path / "a", "--save-config", file).exit_code == 0
    assert 'prompt = [\n    "a cat",\n    "two dogs",\n]' in file.read_text()
    done = run("sample", "--config", file, "--out-dir", tmp_path / "b")
    assert done.stdout.splitlines()[-1] == "2 made"
    for name in ("a_cat_00000.png", "two_dogs_00001.png"):
        both = [Image.open(tmp_path / place / name) for place in ("a", "b")]
        assert both[0].tobytes() == both[1].tobytes()
        assert both[0].text["reg_engine"] == both[1].text["reg_engine"]


def test_a_picture_does_not_say_where_things_lie(folder: str, tmp_path: Path) -> None:
    curve = tmp_path / "secret" / "damping.json"
    curve.parent.mkdir()
    Damping("rayleigh", (0.1, 1.0, 10.0), ((1.0, 0.5, 0.01),)).save(curve)
    words = ["sample", "--model", folder, "--prompt", "black/white", "--size", 16, "--steps", 1]
    words += ["--damping", curve, "--rectify", "none", "--out-dir", tmp_path, "--no-progress"]
    done = run(*words)
    assert done.exit_code == 0, done.exception
    (picture,) = tmp_path.glob("*.png")
    with Image.open(picture) as shown:
        texts = shown.text
    assert "black/white" in texts["Command"] and "damping.json" in texts["Command"]
    assert str(tmp_path) not in "".join(texts.values())
    assert os.path.dirname(folder) not in "".join(texts.values())
    assert json.loads(texts["reg_engine"])["scale"]["factors"]


def test_two_models_of_one_name_are_two(folder: str, tmp_path: Path) -> None:
    other = tmp_path / "tiny-sd"
    shutil.copytree(folder, other)
    assert prompted(folder, tmp_path / "out").exit_code == 0
    assert prompted(folder, tmp_path / "out").stdout.splitlines()[-1] == "0 made"
    assert prompted(str(other), tmp_path / "out").stdout.splitlines()[-1] == "2 made"


def test_bad_input(folder: str, tmp_path: Path) -> None:
    for words, problem in (
        (("--labels", "1"), "--labels: does not go with --prompt"),
        (("--compare",), "--compare: does not go with --prompt"),
        (("--seeds", "1"), "--seeds: 1 for 2 pictures"),
        (("--per-label", 0), "--per-label: is 0. Give a number >= 1"),
        (("--batch-size", 0), "--batch-size: is 0. Give a number >= 1"),
        (("--model", str(tmp_path / "none")), "is no folder, and no hub id"),
        (("--model", str(tmp_path)), "neither model_index.json nor config.json"),
    ):
        done = prompted(folder, tmp_path / "out", *words)
        assert isinstance(done.exception, InputError) and problem in str(done.exception), words
    done = run("sample", "--negative", "bad")
    assert "--negative: goes with --prompt" in str(done.exception)
    assert not (tmp_path / "out" / "a_cat_00000.png").exists()


def test_a_folder_that_wants_code_of_its_own_is_refused(folder: str, tmp_path: Path) -> None:
    other = tmp_path / "coded"
    shutil.copytree(folder, other)
    index = json.loads((other / "model_index.json").read_text())
    index["_class_name"] = ["pipeline", "Mine"]
    (other / "model_index.json").write_text(json.dumps(index))
    (other / "pipeline.py").write_text("raise SystemExit('this ran')\n")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_pipeline(str(other))
