"""`reg-engine evaluate PATH`: its JSON, what it keeps when it is stopped, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from scoring_cases import CODE, pixels, project, write_pictures

from reg_engine import Engine, load_model
from reg_engine.cli import cli
from reg_engine.data.mnist import DATA_SETS
from reg_engine.metrics import Frechet
from reg_engine.pictures.images import to_uint8
from reg_engine.scoring import load_network, load_statistics

IMAGES, REAL = pixels(60), pixels(50, seed=1, high=220)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a feature network, images and reference images; it is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REG_ENGINE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "own.py").write_text(CODE)
    write_pictures(tmp_path / "pictures", IMAGES)
    np.savez(tmp_path / "real.npz", REAL)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["evaluate", *arguments, "--no-progress"])


def refused(*arguments: str) -> str:
    out = run(*arguments)
    assert out.exit_code != 0
    return str(out.exception)


def test_the_json_is_what_is_printed_and_written(place: Path) -> None:
    more = ["--metrics", "fid,is,kid,pr", "--subset-size", "20", "--subsets", "2", "--splits", "2"]
    given = ["pictures", "--features", "own.py:features", "--reference", "real.npz", "--out", "o"]
    out = run(*given, *more, "--json")
    assert out.exit_code == 0, out.output
    found = json.loads(out.output)
    assert json.loads((place / "o.json").read_text()) == found
    assert not list(place.glob("*.parts"))
    vectors = [project(torch.from_numpy(each).permute(0, 3, 1, 2))[0] for each in (IMAGES, REAL)]
    assert found["metrics"]["fid"]["value"] == pytest.approx(Frechet(vectors[1])(vectors[0]))
    assert set(found["metrics"]) == {"fid", "is", "kid", "pr"}
    assert (
        found["metrics"]["kid"]["subset_size"] == 20 and found["reference"]["source"] == "real.npz"
    )
    text = run(*given, *more).output
    for words in ("60 images; 12 features of own.py:features", "precision", "written to o.json"):
        assert words in text
    assert f"{found['metrics']['fid']['value']:.6g}" in text


def test_statistics_are_written_and_read(place: Path) -> None:
    own = ["--features", "own.py:features"]
    assert run("real.npz", *own, "--write-stats", "s.npz", "--out", "a.json").exit_code == 0
    assert load_statistics(place / "s.npz").note["images"]["count"] == 50
    assert json.loads((place / "a.json").read_text())["metrics"] == {}
    out = run("real.npz", *own, "--stats", "s.npz", "--json")
    assert abs(json.loads(out.output)["metrics"]["fid"]["value"]) < 1e-9
    (place / "own.py").write_text(CODE.replace("/ 14", "/ 15"))
    assert "whose weights are others" in refused("real.npz", *own, "--stats", "s.npz")
    assert "read by" in refused("real.npz", *own, "--resize", "9", "--stats", "s.npz")


def test_unreadable_images(place: Path) -> None:
    (place / "pictures" / "00003" / "img00031.png").write_bytes(b"broken")
    given = ["pictures", "--features", "own.py:features", "--reference", "real.npz"]
    assert "1 of the first 60" in refused(*given)
    out = run(*given, "--on-error", "skip", "--json")
    found = json.loads(out.output)["images"]
    assert found["count"] == 59 and found["unreadable"] == 1
    assert found["unreadable_names"][0].startswith("00003/img00031.png (")
    assert "59 images, 1 left out" in run(*given, "--on-error", "skip").output


def test_prompt_scores(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reg_engine.scoring import prompts

    def judge(path: str, device: Any) -> prompts.PromptScore:
        def call(images: Any, said: Any) -> Any:
            return torch.tensor([float(len(text)) for text in said])

        return prompts.PromptScore("clip", call, "c", "letters")

    monkeypatch.setitem(prompts.PROMPT_SCORES, "clip", judge)
    (place / "p.txt").write_text("\n".join("x" * n for n in range(60)))
    out = run("pictures", "--prompt-score", "clip:own.py", "--prompts", "p.txt", "--json")
    assert json.loads(out.output)["clip"]["mean"] == 29.5
    assert not list(place.glob("**/*.parts"))
    assert "--prompts: is missing" in refused("pictures", "--prompt-score", "clip:own.py")
    own = ["--features", "own.py:features", "--metrics", "is"]
    assert "--prompt-score: is missing" in refused("pictures", *own, "--prompts", "p.txt")


def test_options_of_the_other_use_are_refused(place: Path) -> None:
    own = ["--features", "own.py:features"]
    assert "--scales: is of a model" in refused("pictures", *own, "--scales", "2")
    assert "--model: is of a model" in refused("pictures", *own, "--model", "mnist")
    assert "--metrics: is of images" in refused("--metrics", "kid")
    assert "--features: is missing" in refused("pictures")
    assert "says nothing without --features" in refused("--stats", "s.npz")
    assert "missing for kid" in refused("pictures", *own, "--metrics", "kid")
    assert "missing for fid" in refused("pictures", *own, "--metrics", "fid")
    assert "unknown name" in refused("pictures", *own, "--metrics", "fad")
    assert "device" in refused("pictures", *own, "--device", "nowhere")


@pytest.mark.slow
def test_a_model_is_judged_in_any_features(place: Path) -> None:
    for seed, name in enumerate(DATA_SETS):
        rng = np.random.default_rng(seed)
        values = rng.integers(0, 200, (150, 28, 28), dtype=np.uint8)
        labels = np.arange(150) % 10
        file = place / DATA_SETS[name].file
        np.savez(file, x_train=values, y_train=labels, x_test=values, y_test=labels)
    fast = ["--steps", "1", "--solver", "euler", "--batch-size", "20", "--samples", "20"]
    given = ["--data", str(place), *fast, "--scales", "1,2", "--rectify", "none", "--json"]
    out = run(*given, "--features", "fashion")
    assert out.exit_code == 0, out.output
    report = json.loads(out.output)
    judge = load_network("fashion")
    assert report["settings"]["features"]["fingerprint"] == judge.fingerprint
    drawn = Engine(
        load_model("mnist"), scale=2.0, rectify=None, solver="euler", steps=1, batch_size=20
    ).sample(torch.arange(20) % 10, range(20))
    own = judge(to_uint8(drawn.samples).permute(0, 3, 1, 2))[0]
    values = np.random.default_rng(0).integers(0, 200, (150, 28, 28), dtype=np.uint8)
    real = judge(torch.from_numpy(values)[:, None])[0]
    assert report["points"][1]["fid"] == pytest.approx(Frechet(real)(own), rel=1e-6)
    np.savez(place / "other.npz", values[:70] // 2)
    assert run("other.npz", "--features", "fashion", "--write-stats", "s.npz").exit_code == 0
    report = json.loads(run(*given, "--features", "fashion", "--stats", "s.npz").output)
    other = judge(torch.from_numpy(values[:70] // 2)[:, None])[0]
    assert report["points"][1]["fid"] == pytest.approx(Frechet(other)(own), rel=1e-6)
    assert report["settings"]["stats"]["images"]["count"] == 70


KILLED = """
import os, signal, sys
import sklearn.neighbors
import reg_engine.scoring.prompts
from reg_engine.scoring import extract
from reg_engine.cli import main
extract.BLOCK = 8
keep = extract._keep
for job in sys.argv[1:]:
    blocks, out = job.split(":")
    child = os.fork()  # everything is imported already
    if child == 0:
        left = [int(blocks)]
        def dying(*arguments):
            keep(*arguments)
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        extract._keep = dying
        metrics = "fid,is,kid,pr --subset-size 20 --reference real.npz --no-cache"
        words = f"evaluate pictures --features own.py:features --out {out} --metrics {metrics}"
        sys.argv = ["reg-engine", *words.split()]
        main()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    kept = sorted(os.listdir("stopped.parts")) if os.path.isdir("stopped.parts") else []
    print(code, *kept, file=sys.stderr)
"""


def test_kill_9_and_the_same_json(place: Path) -> None:
    (place / "killed.py").write_text(KILLED)
    # 7 blocks of the reference, 8 of the images: killed in the first, where the latter begin, never
    jobs = ["-1:whole", "3:stopped", "6:stopped", "-1:stopped"]
    root = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(
        [sys.executable, "killed.py", *jobs],
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    lines = done.stderr.splitlines()
    assert [line.split()[0] for line in lines] == ["0", "-9", "-9", "0"], done.stderr
    assert lines[1].count("reference-") == 3 and "images-" not in lines[1]
    assert lines[2].count("reference-") == 7 and lines[2].count("images-") == 2
    assert not list(place.glob("*.parts"))
    assert (place / "stopped.json").read_bytes() == (place / "whole.json").read_bytes()


def test_work_on_other_images_is_not_mixed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reg_engine.scoring import report

    given = ["--features", "own.py:features", "--metrics", "is", "--out", "o"]
    with monkeypatch.context() as patch:
        patch.setattr(report, "inception_score", lambda *_: 1 / 0)
        assert "zero" in refused("pictures", *given)
    assert len(list((place / "o.parts").glob("*.npz"))) == 1
    for changed in (["real.npz", *given], ["pictures", *given, "--batch-size", "3"]):
        assert "made with other settings" in refused(*changed)
    assert run("pictures", *given, "--splits", "3").exit_code == 0  # what is kept serves that too
    assert not (place / "o.parts").exists()
