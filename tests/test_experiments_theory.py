"""The theory experiment: its pieces against closed forms, and the quick run's claims."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from theory_cases import CENTRE, DEVIATION, F64, gaussians
from torch import Tensor

import reg_engine
from reg_engine.experiments import run_experiment
from reg_engine.experiments.theory import main
from reg_engine.experiments.theory.chains import two_class_1d
from reg_engine.experiments.theory.fields import (
    errors,
    field_errors,
    fields,
    middle_third,
    renyi_gap,
    renyi_sides,
    solver_levels,
)
from reg_engine.experiments.theory.scores import (
    SCHEDULE,
    Sampler,
    Target,
    sobol_noise,
)
from reg_engine.oracles import GaussianMixture, TiltedGrid, energy_distance, two_class_2d
from reg_engine.rectifiers import PRODUCTS


def points(mixture: GaussianMixture, sigma: float, count: int = 200, y: int | None = 0) -> Tensor:
    g = torch.Generator().manual_seed(5)
    noise = torch.randn(count, mixture.dim, dtype=F64, generator=g)
    return mixture.sample(count, y, g) + sigma * noise


# --- fields ---------------------------------------------------------------------------------------


def test_renyi_gap_of_gaussians_is_the_closed_form() -> None:
    """D_a of two normal distributions is a (m1 - m2)^2 / (2 v) + const, v = a v2 + (1 - a) v1."""
    alpha, sigma, w, wide = 0.8, 0.5, 1.5, 0.6
    x = torch.linspace(-1, 1, 9, dtype=F64)
    variances, means, slopes = [], [], []
    for centre, deviation in ((0.0, DEVIATION), (CENTRE, wide)):
        gain = alpha * deviation**2 / (alpha**2 * deviation**2 + sigma**2)
        variances.append(deviation**2 * (1 - alpha * gain))
        means.append(centre + gain * (x - alpha * centre))
        slopes.append(gain)
    mixed = (1 + w) * variances[1] - w * variances[0]
    wanted = w * (1 + w) * (means[0] - means[1]) * (slopes[0] - slopes[1]) / mixed
    got = renyi_gap(gaussians(wide), x, alpha, sigma, w)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)
    same = renyi_gap(gaussians(), x, alpha, sigma, w)
    assert same.abs().max() < 1e-10  # one width: CFG is golden


@pytest.mark.parametrize("w", [0.5, 4.0])
@pytest.mark.parametrize("sigma", [0.05, 0.6, 3.0])
def test_renyi_identity_on_two_classes(sigma: float, w: float) -> None:
    x = torch.linspace(-1.5, 1.5, 13, dtype=F64)
    gap, term, cfg = renyi_sides(two_class_1d(), x, 1.0, sigma, w)
    torch.testing.assert_close(gap, term, rtol=1e-8, atol=1e-8 * float(cfg.abs().max()))


def test_errors_are_angle_length_and_relative_size() -> None:
    golden = torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=F64)
    turned = torch.tensor([[0.0, 3.0], [0.0, 2.0]], dtype=F64)
    found = errors(turned, golden)
    assert found["angle"] == pytest.approx(90 * 3 / 4)
    assert found["length"] == pytest.approx(5 / 4)
    assert found["relative"] == pytest.approx(math.sqrt((9 + 9 + 1) / 10))


def test_fields_are_what_the_estimators_give() -> None:
    """K delta, column sums and diagonal by autodiff of the denoised estimate."""
    m, w, sigma = two_class_2d(), 2.0, 0.5
    grid, x = TiltedGrid(m), points(m, sigma, 7)
    found = fields(grid, w, x, sigma)
    torch.testing.assert_close(found["golden"], sigma**2 * m.golden(x, sigma, w))
    for row, point in enumerate(x):
        k = torch.autograd.functional.jacobian(
            lambda p: m.denoised(p[None], 1.0, sigma, 0)[0], point
        )
        delta = found["cfg"][row]
        for name, wanted in (
            ("product", k.T @ delta),
            ("columns", k.sum(0) * delta),
            ("diagonal", k.diagonal() * delta),
        ):
            torch.testing.assert_close(found[name][row], wanted, rtol=1e-9, atol=1e-9)
    wins = field_errors(grid, w, points(m, 2.0), 2.0)["wins"]
    assert all(share == 1 for share in wins.values())  # at high noise REG is off, CFG far too long


def test_levels_of_the_solver_and_their_middle_third() -> None:
    levels = solver_levels()
    assert len(levels) == 18 and levels[0] == 20.0 and levels[-1] == pytest.approx(0.01)
    assert levels == sorted(levels, reverse=True)
    assert (
        middle_third([1000.0, 101.0, 99.0, 11.0, 9.0, 1.0])
        == [False, False, True, True] + [False] * 2
    )


# --- scores ---------------------------------------------------------------------------------------


def test_target_scores_as_the_energy_distance_does() -> None:
    target = Target(two_class_2d(), 1.0, 300, draws=3, seed=7)
    samples = points(two_class_2d(), 0.3, 200)
    wanted = sum(energy_distance(samples, draws) for draws in target.sets) / 3
    assert target.score(samples) == pytest.approx(wanted, rel=1e-9)
    apart = sum(float(torch.pdist(draws).mean()) for draws in target.sets) / 3
    assert target.floor(200) == pytest.approx(apart * (1 / 200 + 1 / 300), rel=1e-9)


def test_sobol_noise_is_even_normal_and_repeatable() -> None:
    noise = sobol_noise(1024)
    assert noise.shape == (1024, 2) and noise.dtype == F64
    assert noise.mean(0).abs().max() < 2e-3  # independent draws: 3e-2
    assert (noise.var(0) - 1).abs().max() < 0.02
    assert torch.equal(noise, sobol_noise(1024))
    assert not torch.equal(noise, sobol_noise(1024, scramble=1))


def test_sampler_s_golden_guidance_is_the_oracle_s() -> None:
    m, noise = two_class_2d(), sobol_noise(16)
    wanted = reg_engine.sample(
        m.golden_denoiser(2.0, schedule=SCHEDULE, nodes=65),
        torch.zeros(16, dtype=torch.long),
        scale=1.0,
        steps=6,
        noise=noise,
        dtype=F64,
        progress=False,
    ).samples
    got = Sampler(m, noise, steps=6).golden(2.0)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_sampler_runs_each_method_from_the_same_noise() -> None:
    """Without guidance, in an empty interval and at scale 1 all methods are one."""
    sampler = Sampler(two_class_2d(), sobol_noise(16), steps=4)
    plain = sampler.unguided()
    assert torch.equal(plain, sampler.interval(3.0, 30.0, 40.0))
    guided, nfe = sampler.guided(3.0, "fd")
    cfg, two = sampler.guided(3.0, None)
    assert nfe == 3 * 7 and two == 2 * 7  # 4 Heun steps are 7 evaluations
    assert not torch.allclose(guided, plain) and not torch.allclose(guided, cfg)


def test_bad_input() -> None:
    with pytest.raises(reg_engine.InputError, match="count"):
        sobol_noise(1000)


# --- the quick run --------------------------------------------------------------------------------


# The same bounds hold for fewer samples, solvers and intervals.
FEW = {"count": 512, "solvers": 2, "intervals": 2}


@pytest.fixture(scope="module", params=["tiny", pytest.param("quick", marks=pytest.mark.slow)])
def page(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, dict[str, Any]]]:
    out = tmp_path_factory.mktemp("theory")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "tiny":
            patch.setattr(main, "QUICK", replace(main.QUICK, **FEW))
        run_experiment("theory", out, quick=True)
    yield out / "theory", json.loads((out / "theory" / "numbers.json").read_text())["numbers"]


def test_quick_run_reg_is_five_times_closer_than_cfg(page: Any) -> None:
    for w, found in page[1]["methods"].items():
        scores = {name: sum(values) / len(values) for name, values in found["scores"].items()}
        assert set(PRODUCTS) <= set(scores)
        if float(w) >= 1:
            assert all(5 * scores[name] <= scores["CFG"] for name in PRODUCTS)
            assert max(scores[n] for n in PRODUCTS) < scores["interval"] < scores["CFG"]
        assert scores["golden"] <= 2 * found["floor"]
    assert {"0.5", "1", "2", "4"} == set(page[1]["methods"])


def test_quick_run_theory_holds(page: Any) -> None:
    numbers = page[1]
    assert numbers["renyi"]["largest_relative_error"] < 1e-8
    assert max(row[5] for row in numbers["chains"]["rows"]) < 1e-7
    assert max(numbers["chains"]["joint_end"]) < 1e-7
    for key in ("joint_closes", "marginal_does_not", "reg_error_smaller", "plan_is_free"):
        assert numbers["claims"][key]["holds"], numbers["claims"][key]


def test_quick_run_wins_at_every_step_of_the_middle_third(page: Any) -> None:
    """At points of the whole mixture. At those of the guided distribution the last of the six
    levels is lost at w <= 2, and the page says so."""
    numbers = page[1]
    inside = [k for k, yes in enumerate(numbers["middle_third"]) if yes]
    assert len(inside) == 6
    for rows in numbers["field_errors"]["all"].values():
        assert all(min(rows[k]["wins"].values()) > 0.5 for k in inside)
    for rows in numbers["field_errors"]["guided"].values():
        assert all(min(rows[k]["wins"].values()) > 0.5 for k in inside[:-1])
    assert numbers["claims"]["win_ratio_all"]["holds"]


def test_quick_run_writes_its_page(page: Any) -> None:
    folder, numbers = page
    text = (folder / "README.md").read_text()
    for name in ("clouds", "distances", "scaling", "renyi", "fields", "errors"):
        assert f"{name}.png" in text
        assert (folder / f"{name}.png").stat().st_size > 20_000
        assert (folder / f"{name}.svg").exists()
    for claim in numbers["claims"].values():
        assert claim["text"] in text
