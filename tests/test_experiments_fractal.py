"""The fractal experiment: its pieces against closed forms, and what a quick run must show."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reg_engine import oracles, schedules
from reg_engine.experiments import run_experiment
from reg_engine.experiments.classifier_guidance import ExactClassifier
from reg_engine.experiments.fractal import main
from reg_engine.experiments.fractal.measures import (
    class_target,
    mean_of,
    paired_ratio,
    scores,
    thinned,
)
from reg_engine.experiments.fractal.models import (
    CHAIN,
    SCHEDULE,
    Data,
    Models,
    SeenFromEDM,
    one_pool,
)
from reg_engine.experiments.fractal.page import at_large, ratios
from reg_engine.oracles import energy_distance

MIXTURE = oracles.two_class_2d()
F64 = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def data(count: int = 4000) -> Data:
    sets = [
        torch.stack([MIXTURE.sample(count, y, generator(2 * k + y)) for y in (0, 1)])
        for k in range(3)
    ]
    return Data(MIXTURE, *sets)


class Linear(torch.nn.Module):
    """Logits that do not depend on the noise: (0, slope x)."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(slope))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.zeros_like(x[:, 0]), self.slope * x[:, 0]], 1)


class ChainClassifier(torch.nn.Module):
    """The exact classifier of the chain that the linear one is trained on."""

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return ExactClassifier(MIXTURE, CHAIN)(x, t)


@pytest.mark.parametrize("sigma", [0.01, 0.3, 4.0])
def test_a_chains_classifier_seen_from_edm(sigma: float) -> None:
    """p(y|x_t) is a function of x_t/alpha and sigma/alpha: the exact one looks the same."""
    x = torch.randn(20, 2, dtype=F64, generator=generator())
    level = torch.full((20,), sigma, dtype=F64)
    seen = SeenFromEDM(ChainClassifier(), CHAIN)(x, level)
    torch.testing.assert_close(
        seen, ExactClassifier(MIXTURE, SCHEDULE)(x, level), rtol=1e-7, atol=1e-7
    )


def test_with_exact_parts_both_guidances_are_one() -> None:
    """By Bayes' rule; so the scale of CG and of CFG means the same."""
    models = Models(MIXTURE.denoiser(schedule=SCHEDULE), ExactClassifier(MIXTURE, SCHEDULE))
    for scale in (1.0, 3.0):
        cfg, cg = (models.draw(m, scale, 20, steps=8) for m in ("cfg", "cg"))
        assert cfg.shape == (2, 20, 2) and cfg.dtype == F64
        torch.testing.assert_close(cfg, cg, rtol=1e-3, atol=1e-4)
    own = MIXTURE.class_posterior(cfg[0], 1.0, 0.0).argmax(1)
    assert float((own == 0).double().mean()) > 0.9


def test_thinning_keeps_points_in_proportion() -> None:
    x = torch.arange(20_000, dtype=F64)[:, None]
    log_keep = torch.where(x[:, 0] < 10_000, -3.0, -3.0 + math.log(0.25))
    kept = thinned(x, log_keep, generator())
    assert int((kept < 10_000).sum()) == 10_000  # the bound is the largest value found
    assert int((kept >= 10_000).sum()) == pytest.approx(2500, abs=5 * 2500**0.5)


def test_targets_are_those_of_theory() -> None:
    """CFG's against rejection from the mixture itself; CG's against the classifier's odds."""
    sets, scale = data(), 3.0
    models = Models(MIXTURE.denoiser(schedule=SCHEDULE), Linear(2.0))
    found = class_target(sets, models, "cfg", scale, 1, generator())
    exact = MIXTURE.target_sampler(scale - 1, 1)(4000, generator(9))
    floor = energy_distance(exact, MIXTURE.target_sampler(scale - 1, 1)(4000, generator(10)))
    assert energy_distance(found, exact) < 3 * floor + 1e-3
    assert energy_distance(sets.real[1], exact) > 3 * energy_distance(found, exact)
    tilted = class_target(sets, models, "cg", scale, 1, generator())
    everything = sets.real.flatten(0, 1)
    weights = (2.0 * everything[:, 0]).sigmoid() ** scale
    mean = (weights[:, None] * everything).sum(0) / weights.sum()
    torch.testing.assert_close(tilted.mean(0), mean, rtol=0, atol=0.06)


def test_scores_of_real_points_and_of_shifted_ones() -> None:
    sets = data(600)
    same = scores(sets.real[0], sets, 0, sets.real[0])
    assert same["distance"] == same["energy"] == same["energy_target"] == 0
    assert same["precision"] == same["recall"] == 1
    far = sets.real[0] + torch.tensor([0.0, 50.0], dtype=F64)
    found = scores(far, sets, 0, None)
    assert found["precision"] == found["recall"] == 0
    assert 47 < found["distance"] / 100 < 50 and found["low"] < found["distance"] < found["high"]
    assert found["energy"] == pytest.approx(100, rel=0.05) and "energy_target" not in found
    fresh = scores(sets.fresh[1], sets, 1, None)
    assert 0.45 < fresh["nearer"] < 0.55 and found["nearer"] == 0
    assert fresh["own_class"] > 0.8


def test_a_paired_ratio_knows_that_pairs_move_together() -> None:
    sets = data(400)
    shift = torch.tensor([0.0, 40.0], dtype=F64)
    near, far = sets.real + shift, sets.real + 2.0 * shift
    found = paired_ratio(far, near, sets, generator())
    # The real points reach at most 2 beyond their middle: distances are nearly the shifts.
    assert found["ratio"] == pytest.approx(2.0, rel=0.05)
    assert found["low"] < found["ratio"] < found["high"] < found["low"] * 1.01
    assert paired_ratio(far, far, sets, generator()) == {"ratio": 1.0, "low": 1.0, "high": 1.0}


def test_a_pool_has_equal_shares_of_every_scale() -> None:
    sets = [torch.full((2, 9, 2), float(scale)) for scale in (4, 8, 16)]
    sets = [each + torch.tensor([0.0, 0.5])[:, None, None] for each in sets]
    pooled = one_pool(sets, 12, generator())
    assert pooled.shape == (2, 12, 2)
    assert pooled[1, :, 0].unique(return_counts=True)[1].tolist() == [4, 4, 4]
    assert set(pooled[1].flatten().tolist()) == {4.5, 8.5, 16.5}


def test_ratios_are_of_the_classes_averages() -> None:
    row = {"before": [{"distance": 4.0}, {"distance": 8.0}], "one": [{"distance": 2.0}] * 2}
    numbers = {"methods": {"cfg": {"4": row, "8": {"before": row["before"]}}}}
    assert ratios(numbers, "before", "one") == {"cfg": {"4": 3.0}}


def test_the_sampler_spans_what_the_chain_knows() -> None:
    assert isinstance(SCHEDULE, schedules.EDM)
    assert CHAIN.noise_level(CHAIN.prior_time) > SCHEDULE.sigma_max


# What no training decides is also asked of a run that hardly trains.
FEW = {"base": 20, "flow": 8, "batch": 64, "flow_batch": 64, "pool": 64, "count": 64}


@pytest.fixture(scope="module", params=["tiny", pytest.param("quick", marks=pytest.mark.slow)])
def quick(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("experiments")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "tiny":
            patch.setattr(main, "QUICK", replace(main.QUICK, **FEW))
        numbers = run_experiment("fractal", out, quick=True)["numbers"]
    return out / "fractal", numbers


trained = pytest.mark.parametrize(
    "quick", [pytest.param("quick", marks=pytest.mark.slow)], indirect=True
)


def test_postprocessing_brings_samples_back(quick: tuple[Path, dict[str, Any]]) -> None:
    """At least 2 times nearer to real data at large scales, for CG and CFG, both kinds of flow.

    2 is the page's own claim ("halved"), which the short training has to keep too.
    """
    numbers = quick[1]
    for method in ("cfg", "cg"):
        for stage in ("dedicated", "one"):
            found = ratios(numbers, "before", stage)[method]
            assert found["8"] >= 2 and found["16"] >= 2, (method, stage, found)
        assert numbers["claims"][f"halved_{method}"]["holds"]


@trained
def test_rectified_cfg_is_nearer_to_its_target(quick: tuple[Path, dict[str, Any]]) -> None:
    for scale, factor in (("8", 3.0), ("16", 1.0)):  # at 16 the short training shows
        row = quick[1]["methods"]["cfg"][scale]
        plain, reg = (mean_of(row[stage], "energy_target") for stage in ("before", "reg"))
        assert factor * reg < plain, (scale, plain, reg)


def test_the_exact_parts_stay_on_the_data(quick: tuple[Path, dict[str, Any]]) -> None:
    """Without guidance the exact denoiser samples the class; the linear classifier does not."""
    row = quick[1]["parts"]["1"]
    for y in (0, 1):
        assert row["exact denoiser, CFG"][y]["own_class"] > 0.97
        assert row["exact denoiser, linear classifier"][y]["own_class"] < 0.9


def test_the_page_is_whole(quick: tuple[Path, dict[str, Any]]) -> None:
    folder, numbers = quick
    page = (folder / "README.md").read_text(encoding="utf-8")
    for name in ("clouds", "curves", "rectified"):
        assert (folder / f"{name}.png").stat().st_size > 20_000
        assert (folder / f"{name}.svg").exists() and f"({name}.png)" in page
    assert "metric not named" in page and "5.95 / 3.11 / 1.57" in page
    assert numbers["setting"]["components"] == 1016
    for method in ("cfg", "cg"):  # the claim follows the numbers, whichever way
        both = [at_large(numbers, "before", stage)[method] for stage in ("dedicated", "one")]
        least = min(min(found) for found in both)
        assert numbers["claims"][f"halved_{method}"]["holds"] == (least >= 2)
    assert not (folder / "work").exists()
