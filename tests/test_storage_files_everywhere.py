"""Every command and function that writes: links are not followed, foreign files stay, a full disk
is one paragraph."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from file_cases import DESCRIPTIONS, NET, weights_of
from PIL import Image
from tiny_runs import tiny

from bench import records
from reg_engine import Denoiser, Plan, schedules
from reg_engine.cli import cli
from reg_engine.data.cifar10 import CLASSES, load_cifar10
from reg_engine.experiments import Report
from reg_engine.experiments.figures import figure
from reg_engine.models import UNet
from reg_engine.pictures.evaluation import save_evaluation
from reg_engine.pictures.sheets import save_panels
from reg_engine.postprocess import Postprocess, save_postprocess
from reg_engine.storage.shards import Shards
from reg_engine.storage.weights import save_weights

ROOT = Path(__file__).resolve().parent.parent
RUN = ["--steps", "1", "--no-progress", "--rectify", "none", "--json"]


def command(*arguments: str) -> Callable[[Path], None]:
    """A command of the shell, with its --out in the folder."""

    def run(folder: Path) -> None:
        name, *others = [part.replace("FOLDER", str(folder)) for part in arguments]
        cli.main([name, *others], standalone_mode=False)

    return run


def _pictures(folder: Path) -> None:
    data = folder.parent / "cifar"
    for part in ("train", "test"):
        place = data / part / CLASSES[0]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32)).save(place / "a.png")
    load_cifar10(data, cache=folder / "cache.npz")


def _report(folder: Path) -> None:
    report = Report("one", "Title", folder)
    made, _ = figure(2, 2)
    report.figure("drawn", made, "nothing")
    Shards(report.work / "kept", {}).store("a", torch.zeros(1), {})
    report.finish()


def _shards(folder: Path) -> None:
    shards = Shards(folder, {})
    shards.store("a", torch.zeros(1), {})
    shards.remove()


def _flow(folder: Path) -> None:
    net = Denoiser(UNet(**NET), "flow", schedules.Flow(), (1, 8, 8), 2, num_classes=2)
    save_postprocess(Postprocess(net, "flow_heun", 4), folder / "a.safetensors")


POINT = {"method": "CFG", "scale": 1.0, "fid": 1.0, "fid_error": 0.1, "confidence": 3.0}
EVALUATION = {
    "points": [POINT | {"confidence_error": 0.1}],
    "fronts": {},
    "levels": [],
    "compared_with": None,
    "confidence_of_test_images": 3.5,
}
ROW = records.Row(*[""] * 13)
# What each writes: names of files, relative to its folder, and how.
WRITERS: dict[str, tuple[list[str], Callable[[Path], Any]]] = {
    "plan": (["a.json"], lambda f: Plan.full().save(f / "a.json")),
    "weights": (
        ["a.safetensors"],
        lambda f: save_weights(f / "a.safetensors", weights_of("model"), DESCRIPTIONS["model"]),
    ),
    "flow": (["a.safetensors"], _flow),
    "run": (["checkpoint.pt", "loss.csv"], lambda f: tiny(f, steps=2).run()),
    "batches": (["settings.json", "a.npz"], _shards),
    "panels": (["a.png"], lambda f: save_panels(f / "a.png", {"a": torch.zeros(4, 4, 1).byte()})),
    "curves": (["a.png"], lambda f: save_evaluation(EVALUATION, f / "a.png")),
    "cache": (["cache.npz"], _pictures),
    "report": (
        ["one/README.md", "one/numbers.json", "one/drawn.png", "one/drawn.svg"]
        + [f"one/work/full-0/kept/{name}" for name in ("settings.json", "a.npz")],
        _report,
    ),
    "rows": (["a.csv"], lambda f: records.append(f / "a.csv", [ROW])),
    "sample": (
        ["s.npz", "s.npz.parts/REG-00000.npz", "s.npz.parts/settings.json"],
        command("sample", *RUN, "--labels", "0", "--out", "FOLDER/s.npz"),
    ),
    "calibrate": (
        ["p.json"],
        command(
            "calibrate", "--steps", "1", "--no-progress", "--labels", "0", "--out", "FOLDER/p.json"
        ),
    ),
    "evaluate": (
        ["e.json", "e.png"],
        command(
            "evaluate",
            *RUN,
            "--scales",
            "1",
            "--samples",
            "12",
            "--data",
            "FOLDER/../mnist.npz",
            "--out",
            "FOLDER/e",
        ),
    ),
    "profile": (
        ["trace.json", "profile.png"],
        command("profile", *RUN, "--labels", "0", "--warmup", "0", "--plot", "--out", "FOLDER"),
    ),
}


@pytest.fixture(autouse=True)
def mnist(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    labels = np.arange(40) % 10
    np.savez(tmp_path / "mnist.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)


def _tree(folder: Path) -> dict[str, bytes | str]:
    """Every file's bytes, every link's aim."""
    files = (p for p in folder.rglob("*") if p.is_symlink() or p.is_file())
    return {
        p.relative_to(folder).as_posix(): os.readlink(p) if p.is_symlink() else p.read_bytes()
        for p in files
    }


@pytest.mark.parametrize("name", WRITERS)
def test_foreign_files_and_the_aims_of_links_stay(name: str, tmp_path: Path) -> None:
    targets, write = WRITERS[name]
    folder, outside = tmp_path / "out", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    foreign: dict[str, bytes | str] = {}
    for target in targets:
        place = folder / target
        place.parent.mkdir(parents=True, exist_ok=True)
        for kind in (".{}.probe", "{}.part", "{}.tmp", ".{}.tmp", "{}~", "mine-{}.txt"):
            mine = place.with_name(kind.format(place.name))
            mine.write_bytes(b"mine")
            foreign[mine.relative_to(folder).as_posix()] = b"mine"
        victim = outside / place.name
        victim.write_bytes(b"precious")
        link = place.with_name(f"link-to-{place.name}")
        link.symlink_to(victim)
        foreign[link.relative_to(folder).as_posix()] = str(victim)
        if (
            name not in ("run", "batches", "rows")
            and "parts" not in target
            and "work" not in target
        ):
            place.symlink_to(victim)  # where work goes on from what is there, a link is read
    write(folder)
    after = _tree(folder)
    assert {key: after.get(key) for key in foreign} == foreign
    assert set(after) - set(foreign) <= set(targets), "nothing else is left"
    assert set(_tree(outside).values()) == {b"precious"}
    assert all(not (folder / target).is_symlink() for target in targets)


@pytest.mark.parametrize("name", ["run", "rows"])
def test_a_link_to_an_unfinished_file_is_read_and_then_replaced(name: str, tmp_path: Path) -> None:
    targets, write = WRITERS[name]
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    write(first)
    before = _tree(first)
    for target in targets:
        (second / target).symlink_to(first / target)
    write(second)
    assert _tree(first) == before
    assert all(not (second / target).is_symlink() for target in targets)


def test_a_linked_folder_of_batches_is_said_before_sampling(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "s.npz.parts").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="is a link"):
        WRITERS["sample"][1](tmp_path)
    assert not (tmp_path / "s.npz").exists() and os.listdir(tmp_path / "elsewhere") == []


FULL = """
import resource, sys
sys.path.insert(0, {tests!r})
import reg_engine.engine, reg_engine.training.trainer
from reg_engine import cli
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit},) * 2)
def never(*a, **k):
    raise AssertionError("work was begun")
if {early}:
    reg_engine.engine.Engine.sample = reg_engine.training.trainer.Trainer.run = never
for arguments in {commands!r}:
    sys.argv = ["reg-engine", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        print("code", end.code, file=sys.stderr)
"""


def _limited(limit: int, early: bool, commands: list[list[str]], folder: Path) -> list[str]:
    code = FULL.format(tests=str(ROOT / "tests"), limit=limit, early=early, commands=commands)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, timeout=120
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr.splitlines()


def test_a_full_disk_is_said_before_the_work(tmp_path: Path) -> None:
    out = tmp_path / "out"
    commands = [
        ["sample", "--no-progress", "--out", str(out / "s.npz")],
        ["sample", "--no-progress", "--out", str(out / "s.png")],
        ["calibrate", "--no-progress", "--out", str(out / "p.json")],
        ["evaluate", "--no-progress", "--data", "mnist.npz", "--out", str(out / "e")],
        ["train", "mnist", "--no-progress", "--data", "mnist.npz", "--out", str(out / "run")],
        ["experiment", "reg-1d", "--quick", "--out", str(out)],
        ["profile", "--out", str(out)],
    ]
    said = _limited(1000, True, commands, tmp_path)
    assert len(said) == 2 * len(commands), said
    for error, code in zip(said[::2], said[1::2], strict=True):
        assert error.startswith("error: --out: ") and "Free space" in error
        assert code == "code 2"
    assert [path for path in out.rglob("*") if path.is_file()] == []


def test_a_disk_that_fills_during_the_work_is_said_too(tmp_path: Path) -> None:
    """64 KiB can be written, the 13th sample of a batch cannot; the checkpoint cannot."""
    train = ["train", "mnist", "--no-progress", "--data", "mnist.npz", "--epochs", "0.02"]
    commands = [
        ["sample", *RUN[:-1], "--per-label", "10", "--out", "s.npz"],
        [*train, "--batch-size", "1", "--out", "run"],
    ]
    said = _limited(100_000, False, commands, tmp_path)
    said = [line for line in said if not line.startswith("training ")]  # what runs, at the start
    assert len(said) == 2 * len(commands), said
    for error, code in zip(said[::2], said[1::2], strict=True):
        assert error.startswith("error: ") and "File too large). Free space" in error
        assert code == "code 2"
    assert not (tmp_path / "s.npz").exists() and not (tmp_path / "run/checkpoint.pt").exists()
    assert list(tmp_path.rglob(".reg_engine-*")) == []
