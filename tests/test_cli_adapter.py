"""`--adapter` of `generate`, `evaluate` and `sample --prompt`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from generation_cases import tree
from test_cli_evaluate import images

from reg_engine import InputError, load_model, sample
from reg_engine.cli import cli
from reg_engine.data.mnist import DATA_SETS
from reg_engine.generation import Uniform
from reg_engine.networks.adapter import Adapter, belonging
from reg_engine.networks.lowrank import LowRank
from reg_engine.pictures.images import to_uint8

HOW = ["--steps", "2", "--batch-size", "10", "--no-progress"]


def written(folder: Path, seed: int = 1) -> Path:
    """An adapter of MNIST's model with random numbers."""
    denoiser = load_model("mnist")
    change = LowRank.of(denoiser.modules, 0.03, 4.0)
    generator = torch.Generator().manual_seed(seed)
    for parameter in change.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    folder.mkdir(exist_ok=True)
    path = folder / "adapter.safetensors"
    Adapter(change.requires_grad_(False), (1.0, 4.0), belonging(denoiser)).save(path)
    return path


def call(*words: object) -> Result:
    return CliRunner().invoke(cli, [*map(str, words), *HOW])


def test_generate_makes_the_students_images_and_another_adapter_is_another_job(
    tmp_path: Path,
) -> None:
    path, other = written(tmp_path / "a"), written(tmp_path / "b", seed=2)
    words = ["generate", "--seeds", "0-9", "--scale", 3, "--out", tmp_path / "o"]
    out = call(*words, "--adapter", path)
    assert out.exit_code == 0, out.output
    seeds = range(10)
    labels = torch.tensor([Uniform(10).of(seed) for seed in seeds])
    student = load_model("mnist").with_adapter(path)
    wanted = sample(student, labels, seeds=seeds, scale=3.0, steps=2, progress=False)
    assert wanted.stats.nfe == 3, "heun, one evaluation a row"
    from PIL import Image

    for seed, image in zip(seeds, to_uint8(wanted.samples), strict=True):
        with Image.open(tmp_path / "o" / "000000" / f"{seed:06d}.png") as picture:
            assert np.array_equal(np.asarray(picture), image[..., 0].numpy())
    made = tree(tmp_path / "o")
    moved = path.rename(tmp_path / "renamed.safetensors")
    assert "0 of 1 shards to make" in call(*words, "--adapter", moved).output
    verified = json.loads(call(*words, "--adapter", moved, "--verify", "--json").output)
    assert verified["whole"] and verified["remade"] == 10
    for more in ([], ["--adapter", other]):
        assert "a job of other settings" in str(call(*words, *more).exception)
    assert tree(tmp_path / "o") == made


def test_evaluate_judges_the_student_beside_the_others(tmp_path: Path) -> None:
    np.savez(tmp_path / DATA_SETS["mnist"].file, **images(0, 100))
    path = written(tmp_path / "run")
    words = ["evaluate", "--data", tmp_path, "--out", tmp_path / "e", "--samples", 20]
    words += ["--solver", "euler", "--scales", "1,3", "--confidence=-99"]
    out = call(*words, "--rectify", "none", "--adapter", path)
    assert out.exit_code == 0, out.output
    report = json.loads((tmp_path / "e.json").read_text())
    points = {(p["method"], p["scale"]): p for p in report["points"]}
    assert list(points) == [("CFG", 1), ("CFG", 3), ("adapter run", 1), ("adapter run", 3)]
    row, cfg = points["adapter run", 3], points["CFG", 3]
    assert (row["nfe"], cfg["nfe"]) == (2, 4) and row["reason"].startswith("the adapter holds")
    assert row["effective_scale"] != 1 and set(report["fronts"]) == {"CFG", "adapter run"}
    assert points["adapter run", 1] | {"method": "CFG"} == points["CFG", 1]
    lines = {line[:24].strip(): line[24:].split() for line in out.output.splitlines()[5:]}
    assert lines["confidence"][0] == "evaluations"
    assert (lines["CFG"][0], lines["adapter run"][0]) == ("4.0", "2.0")
    again = call(*words, "--methods", f"cfg; adapter={path}@2", "--json")
    found = [(p["method"], p["scale"]) for p in json.loads(again.output)["points"]]
    assert found[2:] == [("adapter run", 2)]


def test_bad_input_is_one_error_and_nothing_is_written(tmp_path: Path) -> None:
    np.savez(tmp_path / DATA_SETS["mnist"].file, **images(0, 100))
    path = written(tmp_path / "run")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:2000])
    before = sorted(tmp_path.iterdir())
    doors = (
        ["generate", "--seeds", "0-9", "--out", tmp_path / "o"],
        ["evaluate", "--samples", 20, "--scales", 3, "--data", tmp_path, "--out", tmp_path / "e"],
    )
    for door in doors:
        scale = ["--scale" if door[0] == "generate" else "--scales", "5"]
        for more, words in (
            (["--adapter", tmp_path / "none.safetensors"], "adapter: there is no file"),
            (["--adapter", cut], "is damaged"),
            (["--adapter", path, "--model", "fashion"], "belongs to another model: weights"),
            (["--adapter", path, *scale], "scale: is 5, which the adapter was not trained for"),
        ):
            found = call(*door, *more)
            assert isinstance(found.exception, InputError) and words in str(found.exception)
    for more, words in (
        (["--rectify", "vjp"], "rectify: is given, and the adapter"),
        (["--plan", "0.1:2"], "plan: is given, and an adapter"),
    ):
        assert words in str(call(*doors[0], "--adapter", path, *more).exception)
    for text in ("vjp,adapter={}", "adapter={},interval=0.1:2", "adapter={},plan=0.1:2"):
        found = call(*doors[1], "--methods", text.format(path))
        assert "has an adapter, which holds guidance, beside" in str(found.exception)
    twice = call(*doors[1], "--methods", f"cfg; adapter={path}", "--adapter", path)
    assert "has adapter run twice" in str(twice.exception)
    assert sorted(tmp_path.iterdir()) == before


def test_prompts_take_the_adapter_of_a_pipeline(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    import tiny_pipelines
    from pipeline_adapters import own

    from reg_engine.integrations.diffusers import sample as pictures

    pipe = tiny_pipelines.sd()
    pipe.save_pretrained(tmp_path / "pipe")
    path = tmp_path / "a.safetensors"
    own("sd").save(path)
    wanted = pictures(
        pipe, ["a cat"], adapter=path, scale=3.0, steps=2, solver="heun", progress=False
    )
    words = ["--model", tmp_path / "pipe", "--scale", 3, "--adapter", path, "--solver", "heun"]
    out = call("sample", "--prompt", "a cat", "--out-dir", tmp_path / "o", *words, "--json")
    assert out.exit_code == 0, out.output
    from PIL import Image

    with Image.open(json.loads(out.stdout)["pictures"][0]) as picture:
        assert np.array_equal(np.asarray(picture), wanted.images[0].numpy())
        assert "a.safetensors " in picture.text["reg_engine"]
    (tmp_path / "p.txt").write_text("a cat\n")
    bulk = ["generate", "--prompts", tmp_path / "p.txt", "--seeds", "0-0", "--out", tmp_path / "g"]
    assert call(*bulk, *words).exit_code == 0
    with Image.open(tmp_path / "g" / "000000" / "000000.png") as picture:
        assert np.array_equal(np.asarray(picture), wanted.images[0].numpy())
    assert "a job of other settings" in str(call(*bulk, *words[:4], *words[6:]).exception)
    for option, value in (("--damping", "d.json"), ("--rectify", "vjp")):
        both = call("sample", "--prompt", "a", *words, option, value)
        assert f"{option}: does not go with --adapter" in str(both.exception)
    alone = call("sample", "--prompt", "a", *words[:4], "--skip-below", 0.1)
    assert "--skip-below: goes with --damping" in str(alone.exception)
