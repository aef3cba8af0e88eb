"""The quick run of the mnist experiment, with data and without, and what it leaves."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reg_engine import load_model
from reg_engine.engine import Engine
from reg_engine.errors import InputError
from reg_engine.experiments import run_experiment
from reg_engine.experiments.draws import METHODS, Point
from reg_engine.experiments.mnist import main
from reg_engine.experiments.mnist.sampling import CHEAP, TIMES
from reg_engine.models import NoisyClassifier, UNet
from reg_engine.storage.weights import save_weights


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An mnist.npz of digits that the packaged model draws: no download, no file of ours."""
    labels = torch.arange(280) % 10
    drawn = Engine(
        load_model("mnist"),
        scale=1,
        solver="dpmpp_2m",
        solver_options={"times": list(TIMES[::2])},
        steps=len(TIMES[::2]) - 1,
        batch_size=60,
        progress=False,
    ).sample(labels, seeds=range(10_000, 10_280))
    images, classes = drawn.images[..., 0].numpy(), labels.numpy()
    path = tmp_path_factory.mktemp("data") / "mnist.npz"
    parts = {"x_train": images[:200], "y_train": classes[:200]}
    np.savez(path, **parts, x_test=images[200:], y_test=classes[200:])
    return path


@pytest.fixture(scope="module")
def quick(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a quick run with data leaves, with half of its samples."""
    out, usual = tmp_path_factory.mktemp("out"), main._settings

    def half(report: main.Report) -> main.Settings:
        settings = usual(report)
        return replace(settings, sampling=replace(settings.sampling, count=20))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main, "_settings", half)
        run_experiment("mnist", out, quick=True, data=str(data))
    return out / "mnist"


def numbers_of(folder: Path) -> dict[str, Any]:
    numbers: dict[str, Any] = json.loads((folder / "numbers.json").read_text())["numbers"]
    return numbers


def test_the_quick_run_has_every_method_without_and_with_reg(quick: Path) -> None:
    points = numbers_of(quick)["points"]
    for method in METHODS:
        estimators = {p["estimator"] for p in points if p["method"] == method}
        assert {"none", CHEAP} <= estimators, method
    for point in points:
        assert math.isfinite(point["fid"]) and point["fid_error"] > 0
        assert point["agreement_interval"][0] <= point["agreement"]
        assert 0 <= point["precision"] <= 1 and 0 <= point["recall"] <= 1
    strong = [p for p in points if p["method"] == "vanilla" and p["scale"] == 4]
    # A tenth would be chance. The full run reads all labels right at this scale; a few of the quick
    # run's may be misread.
    assert len(strong) == 4 and all(p["agreement"] >= 0.97 for p in strong)


def test_the_quick_run_counts_its_evaluations(quick: Path) -> None:
    numbers = numbers_of(quick)
    steps = len(numbers["times"]) - 1
    found = {
        (p["method"], p["scale"], p["estimator"], p["plan"]): (p["nfe"], p["backward"])
        for p in numbers["points"]
    }
    assert found["vanilla", 1, "none", "full"] == (steps, 0)
    assert found["vanilla", 4, "none", "full"] == (2 * steps, 0)
    assert found["vanilla", 4, CHEAP, "full"] == (3 * steps, 0)
    assert found["vanilla", 4, "vjp", "full"] == (2 * steps, steps)
    assert steps < found["vanilla", 4, CHEAP, "calibrated"][0] <= 3 * steps
    assert found["cg", 2, "none", "full"] == (2 * steps, steps)  # the guide's backward pass
    assert found["interval", 4, "none", "full"][0] < 2 * steps
    assert all(claim["holds"] for claim in numbers["claims"].values())
    assert min(numbers["guides_read_right"].values()) > 0.5  # 0.1 would be chance


def test_the_quick_run_postprocesses(quick: Path) -> None:
    found = numbers_of(quick)["postprocessing"]
    assert {p["space"] for p in found["points"]} == {"pixels", "features"}
    for point in found["points"]:
        # Heun's last step of a flow needs no second evaluation.
        assert point["after"]["nfe"] == pytest.approx(point["before"]["nfe"] + 15)
        assert point["after"]["fid"] != point["before"]["fid"]
    # "Real" images here come from the same model: samples lie as near to some as to others.
    plain = [m for m in found["memorisation"] if m["set"] == "CFG, scale 4"]
    assert 0.2 < plain[0]["nearer"] < 0.8


def test_the_page_shows_its_figures_and_hides_the_path(quick: Path, data: Path) -> None:
    page = (quick / "README.md").read_text(encoding="utf-8")
    for name in ("fronts", "scales", "estimators", "postprocessing", "samples"):
        assert f"]({name}.png)" in page
        assert (quick / f"{name}.png").stat().st_size > 5000
        assert (quick / f"{name}.svg").exists()
    assert "FID of so few samples means little" in page
    assert "the images of MNIST's test set" in " ".join(page.split())
    for text in (page, (quick / "numbers.json").read_text()):
        assert str(data.parent) not in text
    assert not (quick / "work").exists()


def test_without_data_a_quick_run_says_what_it_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REG_ENGINE_DATA", raising=False)
    few = [Point("vanilla", 1), Point("vanilla", 4), Point("vanilla", 4, CHEAP), Point("cg", 2)]
    monkeypatch.setattr("reg_engine.experiments.mnist.main.quick_grid", lambda: few)
    numbers = run_experiment("mnist", tmp_path, quick=True)["numbers"]
    assert numbers["real_images"] is False
    assert [p["method"] for p in numbers["points"]] == ["vanilla"] * 3  # no guide without images
    assert "fid" not in numbers["points"][0]
    assert all(claim["holds"] for claim in numbers["claims"].values())
    assert "97 % or more" in numbers["claims"]["agreement"]["text"]
    page = (tmp_path / "mnist" / "README.md").read_text(encoding="utf-8")
    assert "This run was given no MNIST" in page


def test_fashion_has_networks_data_and_words_of_its_own(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REG_ENGINE_DATA", raising=False)
    about = {"data": "fashion", "sample_shape": [1, 28, 28], "num_classes": 10, "null_cond": 10}
    about |= {"prediction": "edm", "sigma_data": 0.7, "step": 4321, "architecture": "unet"}
    about["schedule"] = {"name": "edm", "sigma_min": 0.002, "sigma_max": 80.0}
    about["arguments"] = {"channels": [16, 32], "heads": 2, "embedding": 16}
    save_weights(tmp_path / "fashion.safetensors", UNet(**about["arguments"]).state_dict(), about)
    judge, own = NoisyClassifier((16, 32)), {"architecture": "classifier"}
    own["arguments"] = {"channels": [16, 32]}
    save_weights(tmp_path / "fashion_classifier.safetensors", judge.state_dict(), own)
    monkeypatch.setattr("reg_engine.models.WEIGHTS", tmp_path)
    few = [Point("vanilla", 1), Point("vanilla", 4), Point("vanilla", 4, CHEAP)]
    monkeypatch.setattr("reg_engine.experiments.mnist.main.quick_grid", lambda: few)
    numbers = run_experiment("mnist", tmp_path, quick=True, data_set="fashion")["numbers"]
    assert numbers["trained"] == {"packaged": 4321}
    assert all(c["text"].startswith("on Fashion-MNIST, ") for c in numbers["claims"].values())
    assert "90 % or more" in numbers["claims"]["agreement"]["text"]
    page = (tmp_path / "mnist-fashion" / "README.md").read_text(encoding="utf-8")
    assert page.startswith("# Guidance on Fashion-MNIST: fronts")
    words = " ".join(page.split())
    assert "given no Fashion-MNIST (`--data fashion_mnist.npz`)" in words
    assert "The packaged Fashion-MNIST U-Net" in words and "digit" not in words
    assert "over its scales on Fashion-MNIST, 40 images a point" in words
    with pytest.raises(InputError, match="is MNIST, not Fashion-MNIST"):
        run_experiment("mnist", tmp_path, quick=True, data_set="fashion", data=str(data))


def test_data_that_is_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        run_experiment("mnist", tmp_path, quick=True, data=str(tmp_path / "absent.npz"))
