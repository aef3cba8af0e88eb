"""The pieces of the 2-D experiment against closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from reg_2d_cases import CHAIN, F64, GRIDS, MODEL, SHAPE, gen, points_at
from torch import Tensor

from reg_engine import sample
from reg_engine.experiments.reg_2d.figures import lattice
from reg_engine.experiments.reg_2d.golden import CFG, WORSE, target_draws
from reg_engine.experiments.reg_2d.main import fields_at, marginal_points, plain, square_points
from reg_engine.experiments.reg_2d.models import (
    QUICK,
    SCHEDULE,
    STEPS,
    clouds,
    energies,
)
from reg_engine.experiments.reg_2d.page import felt_wins, mean_win
from reg_engine.experiments.reg_2d.win import (
    ESTIMATORS,
    FELT,
    INTERVAL,
    METHODS,
    AtWeight,
    Chains,
    Oracle,
    Scores,
    rectified_terms,
    simulation_errors,
    win_ratios,
)
from reg_engine.oracles import chain_golden
from reg_engine.solvers import Row, table

# The chain.


def test_the_chain_ends_in_noise_and_has_25_steps() -> None:
    assert len(CHAIN.rows) == STEPS == 25
    assert CHAIN.rows[0].alpha < 0.06
    assert CHAIN.rows[0].sigma > 0.998
    assert CHAIN.rows[-1].noise_level < 0.05
    assert CHAIN.solver == "ddpm"


# Weights, directions and estimators.


def test_methods_have_the_mean_weight_that_they_say() -> None:
    w = 1.5
    at = {
        name: [method.weight(w)(row, CHAIN) for row in CHAIN.rows]
        for name, method in METHODS.items()
    }
    assert set(at["vanilla"]) == set(at["autoguidance"]) == {w}
    for name in ("linear", "cosine"):
        assert at[name][0] == pytest.approx(0)
        assert at[name][-1] == pytest.approx(2 * w)
        assert sum(at[name]) / STEPS == pytest.approx(w)
        assert at[name] == sorted(at[name])
    for row, weight in zip(CHAIN.rows, at["interval"], strict=True):
        assert weight == (w if INTERVAL[0] <= row.noise_level <= INTERVAL[1] else 0)


@pytest.mark.parametrize("kind", [CFG, WORSE])
def test_estimators_give_the_closed_forms_of_the_exact_model(kind: str) -> None:
    index = 17
    row = CHAIN.rows[index]
    x, labels = points_at(row)
    delta, found = rectified_terms(MODEL, kind, row, index, x, labels)
    unit = row.alpha / row.sigma**2
    cond = SHAPE.mixture.denoised(x, row.alpha, row.sigma, labels)
    other = SHAPE.blurred if kind == WORSE else SHAPE.mixture
    ref = other.denoised(x, row.alpha, row.sigma, labels if kind == WORSE else None)
    torch.testing.assert_close(delta, unit * (cond - ref))
    k = SHAPE.mixture.jacobian(x, row.alpha, row.sigma, labels)
    product = (k @ delta[..., None])[..., 0]
    assert set(found) == set(ESTIMATORS)
    for name in ("vjp", "jvp"):
        torch.testing.assert_close(found[name], product)
    for name in ("fd", "fd_batched"):
        torch.testing.assert_close(found[name], product, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["paper"], k.sum(1) * delta)
    # Hutchinson with one probe: the diagonal, plus or minus the rest of the row.
    diagonal, rest = k.diagonal(dim1=1, dim2=2), k[:, 0, 1][:, None]
    for name in ("diagonal", "diagonal_batched"):
        factor = found[name] / delta
        near = torch.minimum((factor - diagonal - rest).abs(), (factor - diagonal + rest).abs())
        assert near.max() < 1e-4


# Scores.


def test_a_score_counts_wins_and_errors() -> None:
    target = torch.zeros(4, 2, dtype=F64)
    plain_guidance = torch.tensor([[1.0, 0], [0.01, 0], [2, 0], [0, 0.5]], dtype=F64)
    guided = torch.tensor([[0.5, 0], [0.02, 0], [0, 3.0], [0, 0.1]], dtype=F64)
    scores = Scores()
    scores.add(3, guided, plain_guidance, target)
    assert scores.steps == [3]
    assert scores.wins == [0.5]
    assert scores.errors == [pytest.approx(3.62 / 4)]
    assert scores.baseline == [pytest.approx(3.51 / 4)]
    assert FELT > 0.01
    assert scores.felt == [pytest.approx(2 / 3)]  # the second point does not count
    assert scores.counts == [3]
    scores.add(4, guided / 100, plain_guidance / 100, target)
    assert math.isnan(scores.felt[1])
    assert scores.plain()["mean"] == 0.5
    assert scores.plain()["error_ratio"] == pytest.approx(3.62 / 3.51)


class Prepared:
    """Golden guidance that is what `vjp` gives (share 1), or what plain guidance gives (0)."""

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, row: Row, index: int, x: Tensor, labels: Tensor) -> AtWeight:
        def golden(kind: str, w: float) -> Tensor:
            delta, found = rectified_terms(MODEL, kind, row, index, x, labels, ("vjp",))
            return w * (self.share * found["vjp"] + (1 - self.share) * delta)

        return golden


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_win_ratios_are_1_and_0_where_they_must_be(share: float) -> None:
    found = win_ratios(MODEL, CHAIN, Prepared(share), points_at, 1.0, estimators=("vjp",))
    assert set(found) == set(METHODS)
    for name, method in METHODS.items():
        active = [i for i, row in enumerate(CHAIN.rows) if method.weight(1.0)(row, CHAIN) > 0]
        scores = found[name]["vjp"]
        assert scores.steps == active
        assert len(active) == {"vanilla": 25, "autoguidance": 25}.get(name, len(active))
        # Not at the last steps: there both may be nothing at all, and equal.
        early = [win for step, win in zip(scores.steps, scores.wins, strict=True) if step < 20]
        assert set(early) == {share}
        if share:
            assert max(scores.errors) < 1e-9


def test_chains_and_oracle_take_each_points_own_label() -> None:
    index = 21
    row = CHAIN.rows[index]
    x, labels = points_at(row, 2)
    mixed = torch.tensor([2, 0, 3, 1])
    grids = {(CFG, y): GRIDS[CFG, y] for y in (0, 1)}
    chains = Chains(MODEL.denoiser, CHAIN, grids, 3, gen(7), torch.device("cpu"))
    found = chains(row, index, x[mixed], labels[mixed])(CFG, 2.0)
    assert torch.equal(chains.seen[index, CFG, 2.0], found)
    source = gen(7)
    for label in (0, 1):
        at = labels[mixed] == label
        wanted = chain_golden(
            MODEL.denoiser, CHAIN, index, x[mixed][at].float(), GRIDS[CFG, label].log_ratio, 2.0,
            3, source, cond=torch.full((2,), label),
        )  # fmt: skip
        torch.testing.assert_close(found[at], wanted.double())
    exact = Oracle(GRIDS)(row, index, x[mixed], labels[mixed])(WORSE, 1.0)
    for position, chosen in enumerate(mixed.tolist()):
        grid = GRIDS[WORSE, int(labels[chosen])]
        wanted = grid.golden(x[chosen : chosen + 1], row.alpha, row.sigma, 1.0)
        torch.testing.assert_close(exact[position : position + 1], wanted)


def test_finer_chains_simulate_golden_guidance_better() -> None:
    row, errors = CHAIN.rows[23], []
    x, labels = points_at(row, 3)
    exact = Oracle(GRIDS)(row, 23, x, labels)(WORSE, 1.0)
    for finer in (1, 12):
        steps = [t - k / finer for t in range(24, -1, -1) for k in range(finer)]
        chain = table("ddpm", SCHEDULE, STEPS * finer, times=[*steps, -1.0])
        chains = Chains(MODEL.denoiser, chain, GRIDS, 200, gen(3), torch.device("cpu"))
        found = chains(row, 23 * finer, x, labels)(WORSE, 1.0)
        errors.append(float((found - exact).norm(dim=1).mean()))
    assert errors[1] < 0.3 * errors[0]


def test_the_error_of_simulated_guidance_is_its_distance_to_the_oracle() -> None:
    chains = Chains(MODEL.denoiser, CHAIN, GRIDS, 2, gen(3), torch.device("cpu"))
    oracle = Oracle(GRIDS)
    for index, row in enumerate(CHAIN.rows):
        chains.seen[index, CFG, 1.0] = oracle(row, index, *points_at(row))(CFG, 1.0) + 3.0
        chains.seen[index, CFG, 2.0] = torch.zeros(12, 2, dtype=F64)  # another weight
    found = simulation_errors(chains, oracle, CHAIN, points_at, 1.0)
    assert set(found) == {CFG}
    assert found[CFG]["error"] == pytest.approx(3 * math.sqrt(2))
    sizes = [
        oracle(row, i, *points_at(row))(CFG, 1.0).norm(dim=1).mean()
        for i, row in enumerate(CHAIN.rows)
    ]
    assert found[CFG]["size"] == pytest.approx(float(sum(sizes)) / STEPS)


# Points, fields and samples.


def test_points_repeat_and_lie_where_they_should() -> None:
    points = marginal_points(SHAPE, QUICK, CHAIN, gen(5))
    row = CHAIN.rows[24]
    x, labels = points(row)
    assert torch.equal(x, points(row)[0])
    assert labels.tolist() == [0] * QUICK.points + [1] * QUICK.points
    mean = SHAPE.mixture.denoised(x, row.alpha, row.sigma, labels)
    assert (x - row.alpha * mean).norm(dim=1).max() < 6 * row.sigma
    square, classes = square_points(SHAPE, 4)(row)
    assert square.shape == (32, 2)
    assert torch.equal(square[:16], square[16:])
    assert classes.tolist() == [0] * 16 + [1] * 16


def test_fields_are_the_guidance_at_their_points() -> None:
    row = CHAIN.rows[16]
    fields = fields_at(SHAPE, MODEL, GRIDS[CFG, 0], row, 16, 5, torch.device("cpu"))
    axis, _ = lattice(SHAPE, 5)
    x = torch.stack([axis[1], axis[3]])[None]
    wanted = GRIDS[CFG, 0].golden(x, row.alpha, row.sigma, 3.0)
    torch.testing.assert_close(fields.golden[1, 3][None], wanted)
    score = SHAPE.mixture.score(x, row.alpha, row.sigma, 0) - SHAPE.mixture.score(
        x, row.alpha, row.sigma
    )
    torch.testing.assert_close(fields.cfg[1, 3][None], 3.0 * score)
    middle = fields.fine[[20]], fields.fine[[50]]
    density = SHAPE.mixture.log_prob(torch.stack(middle, -1), row.alpha, row.sigma, 0)
    torch.testing.assert_close(fields.log_density[20, 50], density[0])


def test_clouds_are_the_engines_samples_and_repeat() -> None:
    found = clouds(MODEL, GRIDS, 1.0, 3, 40, ("unguided", "cfg", "golden"))
    labels = torch.arange(2).repeat_interleave(3)
    choices: dict[str, Any] = {"solver": "ddpm", "steps": STEPS, "progress": False}
    for name, scale in (("unguided", 1.0), ("cfg", 2.0)):
        out = sample(
            MODEL.denoiser, labels, scale=scale, rectify=None, seeds=range(40, 46), **choices
        )
        torch.testing.assert_close(found[name].flatten(0, 1), out.samples.double())
    assert found["golden"].shape == (2, 3, 2)
    assert not torch.equal(found["golden"], found["unguided"])


def test_draws_of_the_target_score_its_floor() -> None:
    w = 2.0
    own = torch.stack([target_draws(GRIDS[CFG, y], w, 400, gen(8 + y)) for y in (0, 1)])
    swapped = own.flip(0)
    scores = energies(GRIDS, {"cfg": own, "reg_vjp": swapped}, w, 1000, gen())
    assert scores["cfg"] < 3 * scores["floor"]
    assert scores["reg_vjp"] > 20 * scores["floor"]
    assert "auto_floor" in scores


def test_means_over_sets_and_what_the_json_gets() -> None:
    def scores(wins: list[float], felt: list[float], counts: list[int]) -> Scores:
        return Scores([23, 24], wins, [1.0, 1.0], [2.0, 2.0], felt, counts)

    nan = float("nan")
    sets = {
        "a": {"vanilla": plain({"vjp": scores([1.0, 0.5], [1.0, nan], [3, 0])})},
        "b": {"vanilla": plain({"vjp": scores([0.5, 0.0], [0.5, 0.5], [1, 4])})},
    }
    assert mean_win(sets, "vanilla", "vjp") == 50
    assert felt_wins(sets, "vanilla", "vjp", 2) == (87.5, 4)  # 3.5 of 4 points
    assert felt_wins(sets, "vanilla", "vjp", 1) == (50, 4)
    share, count = felt_wins(sets, "vanilla", "vjp", 9)
    assert math.isnan(share)
    assert count == 0
    kept = sets["b"]["vanilla"]
    assert kept["steps"] == [2, 1]
    assert kept["error_plain"] == [2.0, 2.0]
    assert kept["vjp"] == {
        "mean": 0.25,
        "error_ratio": 0.5,
        "wins": [0.5, 0.0],
        "felt": [0.5, 0.5],
        "felt_points": [1, 4],
    }
