"""`reg-engine generate`: the same bytes by one process or many, plans, checks, and bad input."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from generation_cases import tree
from PIL import Image

import reg_engine
from reg_engine.cli import cli
from reg_engine.cli.bulk_run import spans
from reg_engine.generation import Uniform
from reg_engine.pictures.images import to_uint8

generate = importlib.import_module("reg_engine.cli.generate")  # the name is the command's
bulk = importlib.import_module("reg_engine.cli.bulk")
FAST = ["--steps", "2", "--batch-size", "4", "--shard-size", "8", "--no-progress"]
SEEDS = ["--seeds", "0-17"]
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


def call(*words: object, out: Path, ok: bool = True) -> Result:
    command = ["generate", *FAST, "--out", str(out), *map(str, words)]
    return CliRunner().invoke(cli, command, catch_exceptions=not ok)


def test_images_are_the_librarys(tmp_path: Path) -> None:
    found = call(*SEEDS, "--json", out=tmp_path / "o")
    events = [json.loads(line) for line in found.output.splitlines()]
    assert [event["event"] for event in events] == ["start", *["shard"] * 3, "end"]
    assert events[0]["missing"] == "0-2" and events[-1]["images"] == 18
    assert [(event["number"], event["done"]) for event in events[1:4]] == [(0, 1), (1, 2), (2, 3)]
    assert events[3]["seconds_left"] == 0 and events[-1]["shards_left"] == 0
    labels = [Uniform(10).of(seed) for seed in range(8, 12)]
    model = reg_engine.load_model("mnist")
    wanted = reg_engine.sample(
        model, torch.tensor(labels), seeds=range(8, 12), scale=4.0, steps=2, progress=False
    )
    for seed, image in zip(range(8, 12), to_uint8(wanted.samples), strict=True):
        with Image.open(tmp_path / "o" / "000000" / f"{seed:06d}.png") as picture:
            assert np.array_equal(np.asarray(picture), image[..., 0].numpy())
    again = call(*SEEDS, out=tmp_path / "o").output.splitlines()
    assert again[0] == "0 of 3 shards to make: none" and again[-1].startswith("0 images made")


def test_parts_of_an_array_make_the_same(tmp_path: Path) -> None:
    call(*SEEDS, out=tmp_path / "one")
    for part in ("1/2", "0/2"):
        call(*SEEDS, "--shard", part, out=tmp_path / "two")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_a_plan_writes_nothing_and_knows_what_is_there(tmp_path: Path) -> None:
    plan = json.loads(call("--seeds", "0-49999", "--dry-run", "--json", out=tmp_path / "o").output)
    assert not (tmp_path / "o").exists()
    assert (plan["images"], plan["shards"], plan["images_left"]) == (50_000, 6250, 50_000)
    assert plan["missing"] == "0-6249" and plan["bytes_left"] > 50_000 * 100
    assert plan["seconds_left"] == pytest.approx(50_000 * plan["seconds_per_image"])
    call(*SEEDS, "--shard", "1/2", out=tmp_path / "o")
    plan = json.loads(call(*SEEDS, "--dry-run", "--json", out=tmp_path / "o").output)
    assert (plan["missing"], plan["images_left"]) == ("0,2", 10)
    assert (
        "10 images to make, of shards 0,2" in call(*SEEDS, "--dry-run", out=tmp_path / "o").output
    )


def test_verify_finds_damage_and_a_rerun_mends_it(tmp_path: Path) -> None:
    call(*SEEDS, out=tmp_path / "o")
    whole = tree(tmp_path / "o")
    report = json.loads(call(*SEEDS, "--verify", "--json", out=tmp_path / "o").output)
    assert report["whole"] and report["files"] == 19 and report["remade"] == 18
    path = tmp_path / "o" / "000000" / "000009.png"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    found = call(*SEEDS, "--verify", out=tmp_path / "o", ok=False)
    assert "damaged: 000000/000009.png" in found.output and "is not whole" in str(found.exception)
    path.unlink()
    call(*SEEDS, out=tmp_path / "o")
    assert tree(tmp_path / "o") == whole


def test_labels_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("7\n8\n")
    for text, wanted in (
        ("each:2", [0, 0, 1, 1]),
        ("3,5", [3, 5, 3, 5]),
        (f"file:{tmp_path / 'l.txt'}", [7, 8, 7, 8]),
    ):
        out = tmp_path / text.replace("/", "_")
        call("--seeds", "0-3", "--labels", text, out=out)
        lines = (out / "manifest.jsonl").read_text().splitlines()
        assert [json.loads(line)["label"] for line in lines] == wanted


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--seeds", "0-9,5"], "overlap"),
        (["--seeds", "x"], "seeds"),
        (["--seeds", "0-9", "--labels", "0-10"], "out of range"),
        (["--seeds", "0-9", "--labels", "each:0"], "each"),
        (["--seeds", "0-9", "--shard", "2/2"], "--shard"),
        (["--seeds", "0-9", "--shard", "x"], "--shard"),
        (["--seeds", "0-9", "--format", "pgn"], "png"),
        (["--seeds", "0-9", "--shard-size", "9"], "whole batches"),
        (["--seeds", "0-9", "--vae", "somewhere"], "--vae"),
        (["--seeds", "0-9", "--on-error", "no"], "on_error"),
        (["--seeds", "0-9", "--grace", "-1"], "grace"),
        (["--seeds", "0-9", "--expiry", "0"], "expiry"),
        (["--seeds", "0-9", "--prompts", "p.txt", "--labels", "3"], "--labels"),
        (["--seeds", "0-9", "--prompts", "missing.txt"], "missing.txt"),
        (["--seeds", "0-9", "--model", "nope"], "mnist"),
    ],
)
def test_bad_input(tmp_path: Path, words: list[str], says: str) -> None:
    found = call(*words, out=tmp_path / "o", ok=False)
    assert isinstance(found.exception, reg_engine.InputError), found.output
    assert says in str(found.exception)
    assert not (tmp_path / "o" / "000000").exists()


def test_other_settings_show_the_difference(tmp_path: Path) -> None:
    call(*SEEDS, out=tmp_path / "o")
    found = call(*SEEDS, "--scale", "3", out=tmp_path / "o", ok=False)
    assert "scale is 4.0 there, 3.0 here" in str(found.exception)
    command = ["generate", *FAST, *SEEDS, "--out", "s3://bucket/x"]
    assert "Mount it" in str(CliRunner().invoke(cli, command).exception)


def test_processes_of_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    assert generate._start() == 0
    for rank, size, start in (("3", "4", 0.75), ("0", "4", 0.0), ("4", "4", 0.0), ("x", "4", 0.0)):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", size)
        assert generate._start() == start
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert bulk.device_of("cpu") == "cpu" and bulk.device_of(None) is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [bulk.device_of(text) for text in (None, "cuda", "cpu", "cuda:0")] == [
        "cuda:1",
        "cuda:1",
        "cpu",
        "cuda:0",
    ]


def test_spans() -> None:
    assert spans([]) == "none"
    assert spans([1, 2, 3, 7, 9, 10]) == "1-3,7,9-10"
    assert spans(list(range(0, 300, 2))).endswith(",98,...")


def test_sigterm_ends_with_143_and_the_rest_is_made_later(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "reg_engine", "generate", *FAST, "--seeds", "0-399"]
    command += ["--out", str(tmp_path / "o")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENV)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("shard 1:"):
            process.send_signal(signal.SIGTERM)
            break
    process.stdout.read()
    assert process.wait(60) == 143
    made = len(list((tmp_path / "o" / "shards").iterdir()))
    assert 2 <= made < 50 and os.listdir(tmp_path / "o" / "leases") == []


def test_a_full_disk_is_one_error_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """Files of at most 100 blocks of 1 KiB, less than a shard's; the check before the work fits."""
    words = ["--seeds", "0-39", "--steps", "1", "--rectify", "none", "--format", "tar"]
    words += ["--batch-size", "40", "--shard-size", "40"]
    command = [sys.executable, "-m", "reg_engine", "generate", *FAST, *words]
    shell = ["bash", "-c", 'ulimit -f 100; exec "$@"', "-", *command, "--out", str(tmp_path / "o")]
    found = subprocess.run(shell, capture_output=True, text=True, env=ENV)
    errors = [line for line in found.stderr.splitlines() if "error" in line.lower()]
    assert found.returncode == 2 and len(errors) == 1 and "Traceback" not in found.stderr
    assert "000000.tar cannot be written" in errors[0] and "Free space" in errors[0]
    assert sorted(tree(tmp_path / "o")) == ["job.json"]
    assert "1 of 1 shards" in call(*words, out=tmp_path / "o").output
    call(*words, out=tmp_path / "one")
    assert tree(tmp_path / "o") == tree(tmp_path / "one")


@pytest.mark.slow
def test_torchrun_makes_the_same(tmp_path: Path) -> None:
    """Without a process group; REG by `auto`, as the command chooses it."""
    words = ["generate", *FAST, "--seeds", "0-95", "--out"]
    subprocess.run(
        [sys.executable, "-m", "reg_engine", *words, str(tmp_path / "1")], env=ENV, check=True
    )
    for count in ("2", "4"):
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", count]
        command = [*launcher, "-m", "reg_engine", *words, str(tmp_path / count)]
        subprocess.run(command, env=ENV, check=True)
        assert tree(tmp_path / count) == tree(tmp_path / "1")


@pytest.mark.slow
def test_kills_of_the_command_itself(tmp_path: Path) -> None:
    """kill -9 at random times of one of two processes, then two resumes at once."""
    draw = np.random.default_rng(0)
    command = [sys.executable, "-m", "reg_engine", "generate", *FAST, "--seeds", "0-399"]
    command += ["--expiry", "2", "--out"]
    for _ in range(5):
        both = [subprocess.Popen([*command, str(tmp_path / "o")], env=ENV) for _ in range(2)]
        deadline = time.monotonic() + 4 + 6 * float(draw.random())
        while time.monotonic() < deadline and both[0].poll() is None:
            pass
        for process in both:
            process.kill()
            process.wait()
    both = [subprocess.Popen([*command, str(tmp_path / "o")], env=ENV) for _ in range(2)]
    assert [process.wait(300) for process in both] == [0, 0]
    subprocess.run([*command, str(tmp_path / "reference")], env=ENV, check=True)
    assert tree(tmp_path / "o") == tree(tmp_path / "reference")


def test_of_prompts(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    import tiny_pipelines as tiny

    from reg_engine.integrations.diffusers import sample

    pipe, out = tiny.sd(), tmp_path / "o"
    pipe.save_pretrained(tmp_path / "pipe")
    (tmp_path / "p.txt").write_text("a cat\ntwo dogs\n")
    words = ["--model", tmp_path / "pipe", "--prompts", tmp_path / "p.txt", "--rectify", "none"]
    words += ["--seeds", "0-2", "--scale", "3"]
    call(*words, out=out)
    prompts = ["a cat", "two dogs", "a cat"]
    wanted = sample(pipe, prompts, scale=3.0, rectify=None, steps=2, progress=False).images
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert [line["label"] for line in lines] == prompts
    for line, image in zip(lines, wanted, strict=True):
        with Image.open(out / line["file"]) as picture:
            assert np.array_equal(np.asarray(picture), image.numpy())
    assert "0 of 1 shards" in call(*words, out=out).output
    (tmp_path / "p.txt").write_text("a cat\ntwo cats\n")
    assert isinstance(call(*words, out=out, ok=False).exception, reg_engine.InputError)


def test_of_latents(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    from test_models_dit import small
    from test_models_dit_guided import saved
    from tiny_parts import vae

    from reg_engine.adapters import decoder_of
    from reg_engine.models.latents import SD_LATENTS

    vae().save_pretrained(tmp_path / "vae")
    model = saved(tmp_path / "dit.safetensors", small(), latents=SD_LATENTS.described())
    words = ["--model", model, "--seeds", "0-3", "--labels", "0-1", "--rectify", "none"]
    assert "is needed" in str(call(*words, out=tmp_path / "o", ok=False).exception)
    call(*words, "--vae", tmp_path / "vae", out=tmp_path / "o")
    denoiser = reg_engine.load_model(model)
    samples = reg_engine.sample(
        denoiser, torch.tensor([0, 1, 0, 1]), scale=4.0, rectify=None, steps=2, progress=False
    ).samples
    wanted = to_uint8(decoder_of(tmp_path / "vae", SD_LATENTS)(samples))
    for seed, image in enumerate(wanted):
        with Image.open(tmp_path / "o" / "000000" / f"{seed:06d}.png") as picture:
            assert np.array_equal(np.asarray(picture), image.numpy())
    assert "0 of 1 shards" in call(*words, "--vae", tmp_path / "vae", out=tmp_path / "o").output
    three = {"latents": SD_LATENTS.described(), "sample_shape": [3, 8, 8]}
    other = saved(tmp_path / "three.safetensors", small(image_channels=3, outputs=6), **three)
    words[1] = other
    found = call(*words, "--vae", tmp_path / "vae", out=tmp_path / "x", ok=False)
    assert "decodes no samples of (3, " in str(found.exception)
