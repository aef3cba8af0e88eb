"""`reg-engine evaluate`: its report, which images it is held against, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from reg_engine import InputError, load_classifier
from reg_engine.cli import cli
from reg_engine.data.mnist import DATA_SETS
from reg_engine.engine import Engine
from reg_engine.metrics import fid, label_agreement
from reg_engine.models import NoisyClassifier, UNet, load_model
from reg_engine.storage.weights import save_weights

FAST = ["--steps", "1", "--solver", "euler", "--batch-size", "20", "--no-progress"]


def images(seed: int, high: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        f"{key}_{part}": values
        for part in ("train", "test")
        for key, values in (
            ("x", rng.integers(0, high, (150, 28, 28), dtype=np.uint8)),
            ("y", np.arange(150, dtype=np.uint8) % 10),
        )
    }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with both data sets, small and of different noise."""
    for seed, name in enumerate(DATA_SETS):
        np.savez(tmp_path / DATA_SETS[name].file, **images(seed, 256 if seed else 100))
    return tmp_path


def run(folder: Path, *more: str) -> Result:
    command = ["evaluate", "--data", str(folder), "--out", str(folder / "e"), "--samples", "20"]
    return CliRunner().invoke(cli, [*command, *FAST, *more])


def test_the_report_is_what_was_sampled(data: Path) -> None:
    out = run(data, "--rectify", "none,fd", "--scales", "1,2", "--json")
    assert out.exit_code == 0, out.output
    report = json.loads(out.output)
    assert json.loads((data / "e.json").read_text()) == report
    assert (data / "e.png").stat().st_size > 20_000 and not (data / "e.parts").exists()
    assert report["settings"]["model"] == report["settings"]["data"] == "mnist"
    points = {(p["method"], p["scale"]): p for p in report["points"]}
    assert list(points) == [("CFG", 1), ("CFG", 2), ("REG (fd)", 1), ("REG (fd)", 2)]
    choices: dict[str, Any] = {"solver": "euler", "steps": 1, "batch_size": 20, "progress": False}
    labels, judge = torch.arange(20) % 10, load_classifier("mnist")
    drawn = Engine(load_model("mnist"), scale=2.0, rectify="fd", **choices).sample(
        labels, range(20)
    )
    row = points["REG (fd)", 2]
    real = images(0, 100)["x_test"]
    assert row["fid"] == pytest.approx(fid(judge, drawn.samples, real), rel=1e-6)
    share = label_agreement(judge, drawn.samples, labels)
    assert row["agreement"] == share.share
    assert row["agreement_interval"] == [share.low, share.high]
    assert (row["nfe"], row["backward"], row["samples"]) == (3, 0, 20)
    assert row["estimator"] == "fd" and row["reason"] and row["seconds"] > 0
    ways = {"equal_confidence", "equal_agreement", "effective_scale", "equal_scale"}
    assert set(row["against_cfg"]) == ways
    apart = row["against_cfg"]["equal_scale"]
    assert apart["difference"] == pytest.approx(row["fid"] - points["CFG", 2]["fid"])
    assert points["CFG", 2]["against_cfg"]["equal_scale"]["error"] == 0
    assert set(report["fronts"]) == {"CFG", "REG (fd)"} and report["levels"]


def test_a_model_meets_the_images_it_was_trained_on(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about: dict[str, Any] = {"data": "fashion", "sample_shape": [1, 28, 28], "architecture": "unet"}
    about |= {"num_classes": 10, "null_cond": 10, "prediction": "edm", "sigma_data": 0.7}
    about["schedule"] = {"name": "edm", "sigma_min": 0.002, "sigma_max": 80.0}
    about["arguments"] = {"channels": [16, 32], "heads": 2, "embedding": 16}
    torch.manual_seed(0)
    net, judge = UNet(**about["arguments"]), NoisyClassifier((16, 32))
    weights = data / "weights"
    weights.mkdir()
    save_weights(weights / "fashion.safetensors", net.state_dict(), about)
    own = {"architecture": "classifier", "arguments": {"channels": [16, 32]}}
    save_weights(weights / "fashion_classifier.safetensors", judge.state_dict(), own)
    monkeypatch.setattr("reg_engine.models.WEIGHTS", weights)
    reports = []
    for model in ("fashion", str(weights / "fashion.safetensors")):
        out = run(data, "--model", model, "--methods", "cfg", "--scales", "2", "--json")
        assert out.exit_code == 0, out.output
        reports.append(json.loads(out.output))
    assert reports[0]["settings"]["data"] == reports[1]["settings"]["data"] == "fashion"
    (point,), (same,) = (report["points"] for report in reports)
    assert point["fid"] == same["fid"]
    choices: dict[str, Any] = {"solver": "euler", "steps": 1, "batch_size": 20, "progress": False}
    made = Engine(load_model("fashion"), scale=2.0, rectify=None, **choices)
    drawn = made.sample(torch.arange(20) % 10, range(20)).samples
    real = images(1, 256)["x_test"]
    assert point["fid"] == pytest.approx(fid(load_classifier("fashion"), drawn, real), rel=1e-6)


def test_people_are_told_each_point_and_a_table(data: Path) -> None:
    text = "cfg; interval=0.3:90; fd@1,2"
    out = run(data, "--methods", text, "--scales", "1,3", "--confidence", "-99,-98").output
    lines = out.splitlines()
    assert [line[:24].strip() for line in lines[:6]] == [
        "CFG",
        "CFG",
        "interval 0.3-90",
        "interval 0.3-90",
        "REG (fd)",
        "REG (fd)",
    ]
    assert "scale 3 " in lines[1] and "effective scale 3.00" in lines[1] and "nfe 2.0" in lines[1]
    assert lines[8].split() == ["confidence", "evaluations", "-99.00", "-98.00"]
    assert lines[9].startswith("CFG ") and "±" not in lines[9]
    assert lines[11].startswith("REG (fd) ") and lines[11].count("±") == 2
    assert "written to" in lines[-1]


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--methods", "cfg", "--rectify", "fd"], "--rectify: is given beside --methods"),
        (["--methods", "cfg,x=1"], "--methods: 'cfg,x=1' is no method"),
        (["--rectify", "fdd"], "unknown name 'fdd'"),
        (["--confidence", "a"], "--confidence: 'a' is no list"),
        (["--scales", "a"], "--scales: 'a' is no list"),
        (["--samples", "9"], "--samples: is 9"),
    ],
)
def test_bad_input(more: list[str], problem: str, data: Path) -> None:
    out = run(data, *more)
    assert isinstance(out.exception, InputError) and problem in str(out.exception)
    assert not (data / "e.parts").exists() and not (data / "e.json").exists()


def test_a_model_without_a_judge(data: Path) -> None:
    model = load_model("mnist").modules[0]
    about = {"architecture": "unet", "data": "letters", "arguments": model.arguments}
    about |= {"sample_shape": [1, 28, 28], "num_classes": 10, "null_cond": 10, "sigma_data": 0.6}
    about |= {"prediction": "edm", "schedule": {"name": "edm", "sigma_min": 0.002, "sigma_max": 80}}
    save_weights(data / "other.safetensors", model.state_dict(), about)
    out = run(data, "--model", str(data / "other.safetensors"))
    assert "has no classifier to judge it. Give mnist or fashion" in str(out.exception)
