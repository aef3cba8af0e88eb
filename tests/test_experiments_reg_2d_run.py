"""The 2-D experiment as a whole: what a quick run must show."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reg_engine.experiments import run_experiment
from reg_engine.experiments.reg_2d import main
from reg_engine.experiments.reg_2d.models import QUICK
from reg_engine.experiments.reg_2d.win import ESTIMATORS, METHODS

FEW: dict[str, Any] = {"steps": 400, "points": 10, "samples": 200, "target": 600, "field": 11}
PLAIN = [name for name in METHODS if name != "autoguidance"]


@pytest.fixture(scope="module", params=[1, pytest.param(2, marks=pytest.mark.slow)])
def numbers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Of a quick run; where time is short of a smaller one, of one of its two sets."""
    out = tmp_path_factory.mktemp("experiments")
    shapes = QUICK.shapes[-request.param :]
    with pytest.MonkeyPatch.context() as patch:
        few = FEW if request.param == 1 else {}
        patch.setattr(main, "QUICK", replace(QUICK, shapes=shapes, **few))
        run_experiment("reg-2d", out, quick=True)
    folder: Path = out / "reg-2d"
    names = ["win_steps", "energy", *(f"fields_{name}" for name in shapes)]
    for name in names:
        assert (folder / f"{name}.png").stat().st_size > 10_000
        assert (folder / f"{name}.svg").exists()
    assert "Against the paper" in (folder / "README.md").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads((folder / "numbers.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = content["numbers"]
    return found


def mean_of(numbers: dict[str, Any], view: str, method: str, estimator: str) -> float:
    sets = numbers["win_ratio"][view]
    return 100 * sum(found[method][estimator]["mean"] for found in sets.values()) / len(sets)


# A short training shows on which side an effect lies, not how large it is. So a win ratio has to be
# above chance (1/2) and an error below the one that it is compared with, both by a margin that is
# well inside what the full run keeps under docs/experiments/; sizes are claims of that page alone.


@pytest.mark.parametrize("method", PLAIN)
def test_reg_wins_with_every_estimator(numbers: dict[str, Any], method: str) -> None:
    check_wins(numbers, method)


@pytest.mark.parametrize("numbers", [pytest.param(2, marks=pytest.mark.slow)], indirect=True)
def test_reg_wins_on_average_of_the_sets_with_autoguidance(numbers: dict[str, Any]) -> None:
    check_wins(numbers, "autoguidance")


def check_wins(numbers: dict[str, Any], method: str) -> None:
    for estimator in ESTIMATORS:
        assert mean_of(numbers, "exact", method, estimator) > 80
        assert mean_of(numbers, "oracle", method, estimator) > 70
    assert numbers["claims"][f"win_exact_{method}"]["holds"]


@pytest.mark.parametrize("method", PLAIN)
def test_reg_wins_by_the_papers_measure(numbers: dict[str, Any], method: str) -> None:
    # Autoguidance's simulated golden gradient is noise at this size; the full run says more.
    for estimator in ESTIMATORS:
        assert mean_of(numbers, "chains", method, estimator) > 60


def test_where_it_matters_reg_wins_at_nearly_every_point(numbers: dict[str, Any]) -> None:
    for methods in numbers["win_ratio"]["exact"].values():
        felt = [value for value in methods["vanilla"]["vjp"]["felt"] if value is not None]
        assert len(felt) > 5
        assert sum(felt) / len(felt) > 0.9


def test_reg_samples_are_nearer_to_the_target(numbers: dict[str, Any]) -> None:
    for weights in numbers["energy_distance"].values():
        for scores in weights["w=3"].values():
            for estimator in ("paper", "vjp"):
                assert scores[f"reg_{estimator}"] < 0.9 * scores["cfg"]
            assert scores["golden"] < 0.5 * scores["cfg"]
            assert scores["auto_golden"] < 0.5 * scores["auto"]
