"""`reg-engine reproduce`: what it lists, what it needs, a run at tiny size, and its errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image
from reproduce_cases import feature_file, statistics_of, weights

from reg_engine.cli import cli
from reg_engine.reproduce import RECIPES
from reg_engine.reproduce.points import evaluations, points_of
from reg_engine.scoring import load_network


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["reproduce", *arguments])


def test_without_a_name_the_recipes() -> None:
    said = run()
    assert said.exit_code == 0 and all(name in said.output for name in RECIPES)
    assert [row["name"] for row in json.loads(run("--json").output)["recipes"]] == list(RECIPES)


def test_a_dry_run_says_what_is_needed_and_how_long(tmp_path: Path) -> None:
    recipe = RECIPES["edm2-s-512"]
    points = points_of(recipe, ["vanilla"], ["none"])
    weights(tmp_path / "nets", points[:1])
    given = ["edm2-s-512", "--dry-run", "--weights", str(tmp_path / "nets")]
    found = json.loads(run(*given, "--methods", "vanilla", "--rectify", "none", "--json").output)
    assert found["files"] == {
        "edm2-img512-s-2147483-0.025.safetensors": True,
        "edm2-img512-xs-uncond-2147483-0.025.safetensors": True,
    }
    # 63 evaluations without guidance, twice as many at six scales; 50,000 samples each.
    assert found["hours"] == pytest.approx(63 * 13 * 50_000 * recipe.seconds / 3600)
    assert sum(map(evaluations, points)) == 63 * 13
    text = run(*given).output
    assert "needed  edm2-img512-xs-0134217-0.125.safetensors" in text
    assert "there   edm2-img512-s-2147483-0.025.safetensors" in text
    assert "--vae" in text and "62 points of 50,000 samples" in text and "NVIDIA H200" in text
    assert "by operations" in run("edm2-xxl-512", "--dry-run").output
    assert "--prompts" in run("sd-xl", "--dry-run").output


def test_a_run_at_tiny_size(tmp_path: Path) -> None:
    points = points_of(RECIPES["edm2-s-64"], ["vanilla", "autoguidance"])
    folder, file = weights(tmp_path / "nets", points), feature_file(tmp_path)
    network = load_network(f"{file}:network")
    statistics_of(network).save(tmp_path / "stats.npz", "stats")
    given = [
        "edm2-s-64", "--weights", str(folder), "--features", f"{file}:network",
        "--stats", str(tmp_path / "stats.npz"), "--methods", "vanilla,autoguidance",
        "--rectify", "none,fd", "--scales", "1,2", "--samples", "10", "--steps", "2",
        "--no-progress", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    done = run(*given)
    assert done.exit_code == 0, (done.output, done.exception)
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["samples"] == 10 and len(report["points"]) == 8 and report["steps"] == 2
    assert report["features"]["fingerprint"] == network.fingerprint
    assert report["reference"]["source"] == str(tmp_path / "stats.npz")
    assert report["run"]["batch_size"] == 8 and report["conventions"]["splits"] == 10
    one = report["points"][-1]
    assert (one["method"], one["rectify"], one["scale"]) == ("autoguidance", "fd", 2.0)
    assert one["cost"]["nfe"] == 9 and one["warning"] is None
    assert "FID" in done.output and "nfe 9.0" in done.output
    assert not (tmp_path / "out.parts").exists()
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.width > 600


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["edm2-x"], "recipe"),
        (["edm2-s-64"], "--weights: is missing"),
        (["edm2-s-64", "--weights", "nets"], "--features: is missing"),
        (["edm2-s-64", "--samples", "1"], "--samples"),
        (["sd-1.4", "--methods", "interval"], "methods"),
        (["edm2-s-64", "--rectify", "papers"], "rectify"),
        (["edm2-s-64", "--scales", "a"], "scales"),
        (["edm2-s-64", "--weights", "n", "--features", "mnist"], "stats: is missing for fid"),
    ],
)
def test_errors(given: list[str], said: str, tmp_path: Path) -> None:
    failed = run(*given, "--out", str(tmp_path / "out"))
    assert failed.exit_code != 0 and said in str(failed.exception), failed.exception


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["edm2-s-64"], "there is no"),
        (["edm2-s-64", "--metrics", "is"], "--metrics: lack fid"),
        (["edm2-s-64", "--metrics", "fid,kid"], "reference: is missing for kid"),
        (["edm2-s-64", "--clip", "nowhere"], "prompt_score"),
        (["edm2-s-64", "--dtype", "half"], "dtype"),
        (["sd-1.4"], "--prompts: is missing"),
    ],
)
def test_errors_of_a_run(given: list[str], said: str, tmp_path: Path) -> None:
    file = feature_file(tmp_path)
    statistics_of(load_network(f"{file}:network")).save(tmp_path / "stats.npz", "stats")
    ready = ["--weights", str(tmp_path), "--features", f"{file}:network"]
    ready += ["--stats", str(tmp_path / "stats.npz"), "--out", str(tmp_path / "out")]
    failed = run(*given, *ready)
    assert failed.exit_code != 0 and said in str(failed.exception), failed.exception
    assert not (tmp_path / "out.json").exists()
