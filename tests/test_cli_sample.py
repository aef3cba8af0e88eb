"""A resumable run against the engine itself: same samples, nothing done twice; damped samples."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from nets import tiny
from PIL import Image

from reg_engine import Damping, Engine, Gibbs, InputError, load_model
from reg_engine.cli import cli
from reg_engine.cli.sample import _drawable
from reg_engine.pictures.images import grid
from reg_engine.pictures.sheets import MOST_PIXELS
from reg_engine.resume import run_resumable
from reg_engine.storage.shards import Shards

LABELS, SEEDS = torch.tensor([0, 1, 2, 0, 1]), [11, 12, 13, 14, 15]


def engine() -> Engine:
    return Engine(tiny(), scale=2.0, rectify="vjp", steps=3, batch_size=2, progress=False)


def test_a_resumable_run_is_the_engines_own(tmp_path: Path) -> None:
    whole = engine().sample(LABELS, SEEDS)
    samples, stats = run_resumable(engine(), LABELS, SEEDS, Shards(tmp_path / "p", {}), "REG")
    assert torch.equal(samples, whole.samples)
    for name in ("samples", "nfe", "backward", "modes", "estimator", "solver", "backend"):
        assert getattr(stats, name) == getattr(whole.stats, name), name
    assert stats.seconds > 0


def test_what_is_kept_is_not_sampled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = engine().sample(LABELS, SEEDS).samples
    asked: list[list[int]] = []
    plain = Engine.sample

    def counting(self, cond, seeds=None, noise=None):  # type: ignore[no-untyped-def]
        asked.append(list(seeds))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return plain(self, cond, seeds, noise)

    monkeypatch.setattr(Engine, "sample", counting)
    with pytest.raises(KeyboardInterrupt):
        run_resumable(engine(), LABELS, SEEDS, Shards(tmp_path / "p", {}), "REG")
    samples, stats = run_resumable(engine(), LABELS, SEEDS, Shards(tmp_path / "p", {}), "REG")
    assert asked == [[11, 12], [13, 14], [13, 14], [15]]
    assert torch.equal(samples, whole) and stats.samples == 5


def test_a_seed_is_needed_for_every_sample(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="seeds"):
        run_resumable(engine(), LABELS, SEEDS[:4], Shards(tmp_path / "p", {}), "REG")


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 30)])
def test_as_many_images_are_drawn_as_fit_a_picture(shape: tuple[int, ...]) -> None:
    """An image takes its pixels and a gap of `grid` to the next one, each enlarged two times."""
    channels, height, width = shape
    sizes = [grid(torch.zeros(n * n, height, width, channels).byte(), n).shape for n in (1, 2)]
    one = [4 * (b - a) for a, b in zip(*sizes, strict=True)]
    most = 4 * MOST_PIXELS // (one[0] * one[1])
    _drawable(most, shape)
    with pytest.raises(InputError, match=f"^--out: {most + 1} images .* at most {most},"):
        _drawable(most + 1, shape)


def test_what_is_no_image_is_not_drawn() -> None:
    with pytest.raises(InputError, match="at most 0, or end it in .npz"):
        _drawable(1, (28, 28))


def test_a_comparison_is_twice_as_many_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module("reg_engine.cli.sample")  # by that name there is the command, too
    monkeypatch.setattr(module, "MOST_PIXELS", 2 * 4 * 30 * 30)
    call = ["sample", "--labels", "0-1", "--steps", "1", "--no-progress", "--rectify", "fd"]
    out = str(tmp_path / "x.png")
    two = CliRunner().invoke(cli, [*call, "--out", out])
    assert two.exit_code == 0, two.output
    with pytest.raises(InputError, match=r"4 images of \(1, 28, 28\)"):
        CliRunner().invoke(cli, [*call, "--compare", "--out", out], catch_exceptions=False)


def test_calibrate_writes_a_damping_that_sample_takes(tmp_path: Path) -> None:
    file, fast = str(tmp_path / "d.json"), ["--steps", "3", "--labels", "0-3", "--no-progress"]
    call = ["calibrate", *fast, "--damping", "rayleigh", "--out", file]
    result = CliRunner().invoke(cli, call, catch_exceptions=False)
    assert result.output.startswith("F by noise level: 0.02:")
    damping = Damping.load(file)
    assert damping.method == "rayleigh" and damping.report["samples"] == 64
    call = ["sample", *fast, "--damping", file, "--scale", "3", "--skip-below", "0.15"]
    out = ["--json", "--out", str(tmp_path / "s.npz")]
    result = CliRunner().invoke(cli, [*call, *out], catch_exceptions=False)
    ((name, row),) = json.loads(result.output)["methods"].items()
    assert name == "damped" and row["estimator"] == "none"
    engine = Engine(load_model("mnist"), scale=damping(3.0, skip_below=0.15), steps=3)
    assert row["modes"] == {m: engine.modes.count(m) for m in set(engine.modes)}
    assert row["modes"]["cond"] > 0
    picture = ["--compare", "--out", str(tmp_path / "s.png")]
    result = CliRunner().invoke(cli, [*call, *picture], catch_exceptions=False)
    assert result.output.index("CFG") < result.output.index("damped")
    with pytest.raises(InputError, match="twice"):
        CliRunner().invoke(cli, [*call, "--rectify", "vjp", *out], catch_exceptions=False)
    plain = ["sample", *fast, "--damping", file, "--rectify", "none", *out]
    assert '"damped"' in CliRunner().invoke(cli, plain, catch_exceptions=False).output


def test_calibrate_tells_the_headroom_of_a_tilt(monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("reg_engine.cli.calibrate")
    table = Damping("tilt", (0.1, 1.0), ((0.9, 0.4), (0.8, 0.3)), (2.0, 3.0), (0.01, 0.2))
    asked: list[Any] = []
    monkeypatch.setattr(
        module, "calibrate_damping", lambda *a, **k: (asked.append((a, k)), table)[1]
    )
    with CliRunner().isolated_filesystem():
        call = ["calibrate", "--damping", "tilt", "--scales", "2,3", "--steps", "3"]
        output = CliRunner().invoke(cli, call, catch_exceptions=False).output
        CliRunner().invoke(cli, [*call, "--rectified"], catch_exceptions=False)
        for wrong, says in (
            (["--rectified"], "--rectified: is for dampings"),
            (["--scales", "2,3"], "--scales: is for dampings"),
            (["--damping", "rayleigh", "--scales", "2,3"], "--scales: is for --damping tilt"),
            (["--damping", "tilt", "--scale", "3"], "--scale: is for plans"),
            (["--damping", "tilt", "--rectify", "vjp"], "--rectify: is for plans"),
            (["--damping", "tilt", "--tolerance", "0.1"], "--tolerance: is for plans"),
        ):
            with pytest.raises(InputError, match=f"^{says}"):
                CliRunner().invoke(cli, ["calibrate", *wrong], catch_exceptions=False)
    assert "scale 3: 0.1:0.800 1:0.300" in output and "rejects 20.0%" in output
    (arguments, choices), *_ = asked
    assert arguments[2] == [2.0, 3.0] and choices["method"] == "tilt" and choices["steps"] == 3
    assert [choices["rectified"] for _, choices in asked] == [False, True]


def test_refine_adds_rounds(tmp_path: Path) -> None:
    call = ["sample", "--steps", "3", "--labels", "0-1", "--no-progress", "--rectify", "none"]
    out = str(tmp_path / "s.npz")
    ran = CliRunner().invoke(cli, [*call, "--refine", "0.4:2", "--out", out, "--json"])
    assert ran.exit_code == 0, ran.output
    choices = {"scale": 4.0, "rectify": None, "steps": 3, "refine": Gibbs(0.4, 2), "batch_size": 50}
    wanted = Engine(load_model("mnist"), progress=False, **choices).sample([0, 1])
    assert json.loads(ran.output)["methods"]["CFG"]["nfe"] == wanted.stats.nfe > 10
    assert np.array_equal(np.load(out)["samples"], wanted.samples.numpy())
    picture = [*call, "--refine", "0.4", "--out", str(tmp_path / "s.png")]
    CliRunner().invoke(cli, picture, catch_exceptions=False)
    notes = Image.open(tmp_path / "s.png").info
    assert "--refine 0.4" in notes["Command"]
    for wrong in ("x", "0", "0.4:0", "0.4:", "0.4:x"):
        with pytest.raises(InputError, match="^--refine: "):
            CliRunner().invoke(
                cli, [*call, "--refine", wrong, "--out", out], catch_exceptions=False
            )
