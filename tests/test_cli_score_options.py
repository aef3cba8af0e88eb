"""`reg-engine evaluate PATH`: options that would do nothing are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scoring_cases import CODE, pixels, write_pictures

from reg_engine import InputError
from reg_engine.cli import cli

COUNT = 4


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a feature network, images and reference images; it is the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(CODE)
    write_pictures(tmp_path / "pictures", pixels(COUNT))
    np.savez(tmp_path / "real.npz", pixels(COUNT, seed=1))
    return tmp_path


def refused(*arguments: str) -> str:
    out = CliRunner().invoke(cli, ["evaluate", *arguments, "--no-progress"])
    assert isinstance(out.exception, InputError), out.output
    return str(out.exception)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("--metrics is --k 5", "--k: does nothing without pr in --metrics"),
        ("--metrics pr --reference real.npz --splits 3", "--splits: does nothing without is"),
        ("--metrics pr --reference real.npz --subsets 3", "--subsets: does nothing without kid"),
        ("--metrics is --subset-size 9", "--subset-size: does nothing without kid in --metrics"),
        ("--metrics is --bootstrap 9", "--bootstrap: does nothing without fid in --metrics"),
        ("--metrics is --no-cache", "--cache: does nothing without --reference"),
        ("--metrics is --stats s.npz", "--stats: does nothing without fid in --metrics"),
        ("--metrics is --reference real.npz", "--reference: does nothing without a metric"),
        ("--seed 1", "--seed: does nothing without --metrics"),
    ],
)
def test_options_that_would_do_nothing_are_refused(place: Path, more: str, says: str) -> None:
    assert says in refused("pictures", "--features", "own.py:features", *more.split())
    assert not list(place.glob("out/*"))  # nothing is written or begun


@pytest.mark.parametrize(
    "more",
    ["--metrics is", "--stats s.npz", "--reference real.npz", "--resize 9", "--write-stats s"],
)
def test_scores_of_features_are_not_left_out_in_silence(place: Path, more: str) -> None:
    (place / "said.txt").write_text("a picture\n" * COUNT)
    beside = ["--prompt-score", "clip:none", "--prompts", "said.txt"]
    assert f"{more.split()[0]}: does nothing without --features" in refused(
        "pictures", *beside, *more.split()
    )
