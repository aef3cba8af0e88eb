"""Golden guidance by chains, simulated and in the limit, against closed forms and the oracle."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import reg_engine
from reg_engine import InputError, schedules
from reg_engine.oracles import (
    GaussianMixture,
    chain_golden,
    chain_limit,
    chain_rewards,
    golden_of,
    one_d,
)
from reg_engine.solvers import Table, table

F64 = torch.float64
SCHEDULE = schedules.VPLinear(train_steps=20)
DDPM = table("ddpm", SCHEDULE, 20)
GRID = torch.linspace(-0.5, 2, 6, dtype=F64)[:, None]


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(mean: float = 0.7, deviation: float = 0.4) -> GaussianMixture:
    return GaussianMixture(torch.tensor([[mean]], dtype=F64), deviation)


def affine(mixture: GaussianMixture, index: int) -> tuple[float, float, float]:
    """x_0 = slope x_t + shift + N(0, variance) of the chains of one Gaussian in one dimension."""
    mean, variance = float(mixture.means[0, 0]), float(mixture.variances[0, 0])
    slope, shift, spread = 1.0, 0.0, 0.0
    for row in DDPM.rows[index:]:
        gain = row.alpha * variance / (row.alpha**2 * variance + row.sigma**2)
        factor = row.a + row.b[0] * gain
        slope, spread = factor * slope, factor**2 * spread + row.c**2
        shift = factor * shift + row.b[0] * (1 - gain * row.alpha) * mean
    return slope, shift, spread


@pytest.mark.parametrize("index", [0, 9, 19])
def test_a_linear_reward_gives_the_slope_of_the_chain(index: int) -> None:
    """Every chain of a Gaussian has the same slope: no noise is left, whatever the repeats."""
    m = gaussian()
    model = m.denoiser(0, schedule=SCHEDULE)
    found = chain_golden(model, DDPM, index, GRID, lambda x: 3 * x[:, 0], 2.0, 4, gen())
    slope, _, _ = affine(m, index)
    torch.testing.assert_close(found, torch.full_like(GRID, 2 * 3 * slope))


def test_correlated_coordinates_are_carried_through_the_chain() -> None:
    """In 2-D the slope is a matrix, the product of the steps' own."""
    covariance = torch.tensor([[[0.3, 0.12], [0.12, 0.1]]], dtype=F64)
    m = GaussianMixture(torch.zeros(1, 2, dtype=F64), covariance)
    toward = torch.tensor([1.0, -2.0], dtype=F64)
    slope = torch.eye(2, dtype=F64)
    for row in DDPM.rows[5:]:
        noisy = row.alpha**2 * covariance[0] + row.sigma**2 * torch.eye(2, dtype=F64)
        gain = row.alpha * covariance[0] @ torch.linalg.inv(noisy)
        slope = (row.a * torch.eye(2, dtype=F64) + row.b[0] * gain) @ slope
    model = m.denoiser(0, schedule=SCHEDULE)
    x = torch.randn(3, 2, dtype=F64, generator=gen())
    found = chain_golden(model, DDPM, 5, x, lambda z: z @ toward, 1.0, 2, gen())
    torch.testing.assert_close(found, (slope.T @ toward).expand(3, 2))


@pytest.mark.parametrize("w", [1.0, 3.0])
def test_a_quadratic_reward_meets_its_gaussian_integral(w: float) -> None:
    """E_t is a Gaussian integral; with w outside the logarithm the answer would be another."""
    m, sharp, centre = gaussian(), 2.0, 1.5
    slope, shift, variance = affine(m, 0)
    ends = slope * GRID + shift - centre

    def closed(inside: float, outside: float) -> Tensor:
        return -outside * slope * ends / (variance + 1 / (inside * sharp))

    found = chain_golden(
        m.denoiser(0, schedule=SCHEDULE),
        DDPM,
        0,
        GRID,
        lambda x: -0.5 * sharp * (x[:, 0] - centre) ** 2,
        w,
        8000,
        gen(),
    )
    error = (found - closed(w, 1.0)).abs().max()
    assert error < 0.03 * found.abs().max()
    if w != 1:
        assert (found - closed(1.0, w)).abs().max() > 5 * error


def test_chains_of_the_exact_denoiser_approach_the_exact_oracle() -> None:
    """The paper's 1-D setting from t = 13 of 20: both fine steps and many repeats are needed.

    Seeds differ: 2 to 5 % with 4000 repeats of 60 steps, 40 % with 6 steps, 30 % with 15 repeats.
    """
    m, x = one_d(), torch.linspace(0, 2, 9, dtype=F64)[:, None]
    model, w = m.denoiser(0, schedule=SCHEDULE), 1.0
    exact = m.golden(x, 12.0, w, 0, SCHEDULE)

    def log_ratio(x0: Tensor) -> Tensor:
        return m.log_prob(x0, y=0) - m.log_prob(x0)

    def error(steps: int, repeats: int) -> float:
        # Equal steps of the noise level's square root: it falls to 0 without a jump at the end.
        ramp = torch.linspace(1, 0, steps + 1, dtype=F64).numpy() ** 2
        times = [SCHEDULE.time_of(float(u * SCHEDULE.noise_level(12.0))) for u in ramp]
        fine = table("ddpm", SCHEDULE, steps, times=times)
        found = chain_golden(model, fine, 0, x, log_ratio, w, repeats, gen(1))
        return float((found - exact).abs().mean() / exact.abs().mean())

    assert error(60, 4000) < 0.07
    assert min(error(6, 4000), error(60, 15)) > 0.2


def test_deterministic_chains_are_the_differentiated_mean_path() -> None:
    m, w, h = one_d(), 2.0, 1e-5
    model = m.denoiser(0, schedule=SCHEDULE)

    def end(x: Tensor) -> Tensor:
        for row in DDPM.rows[8:]:
            x = row.a * x + row.b[0] * model(x, row.t, torch.zeros(len(x), dtype=torch.long))
        return (2 * x).sin()[:, 0]

    found = chain_golden(
        model, DDPM, 8, GRID, lambda x: (2 * x).sin()[:, 0], w, 1, gen(), stochastic=False
    )
    wanted = w * (end(GRID + h) - end(GRID - h)) / (2 * h)
    torch.testing.assert_close(found[:, 0], wanted, rtol=1e-6, atol=1e-7)


def test_the_chain_is_the_engines_own() -> None:
    """Ends of the unguided DDIM chain, from the same first state."""
    m = one_d()
    model, ddim = m.denoiser(0, schedule=SCHEDULE), table("ddim", SCHEDULE, 20)
    unit = torch.randn(6, 1, dtype=F64, generator=gen())
    labels = torch.zeros(6, dtype=torch.long)
    wanted = reg_engine.sample(
        model, labels, scale=1.0, solver="ddim", steps=20, noise=unit, dtype=F64, progress=False
    ).samples
    x = ddim.init_scale * unit
    ends, _ = chain_rewards(model, ddim, 0, x, lambda z: z[:, 0], 3, gen(), cond=labels)
    torch.testing.assert_close(ends, wanted.expand(6, 3))


def test_blocks_and_calls_change_nothing() -> None:
    m = one_d()
    model = m.denoiser(0, schedule=SCHEDULE)

    def run(block: int, seed: int = 0) -> Tensor:
        return chain_golden(
            model, DDPM, 10, GRID, lambda x: x[:, 0].cos(), 1.0, 7, gen(seed), block=block
        )

    torch.testing.assert_close(run(5), run(4096), rtol=1e-12, atol=1e-12)
    assert torch.equal(run(16), run(16))
    assert not torch.allclose(run(16), run(16, seed=1))


def test_one_pass_serves_every_weight() -> None:
    model = one_d().denoiser(0, schedule=SCHEDULE)
    rewards, slopes = chain_rewards(model, DDPM, 12, GRID, lambda x: x[:, 0] ** 2, 5, gen())
    assert rewards.shape == (6, 5) and slopes.shape == (6, 5, 1)
    leaf = torch.zeros(6, 5, 1, dtype=F64, requires_grad=True)
    moved = rewards + (slopes * leaf).sum(-1)
    (wanted,) = torch.autograd.grad((4.0 * moved).logsumexp(1).sum(), leaf)
    torch.testing.assert_close(golden_of(rewards, slopes, 4.0), wanted.sum(1))
    assert golden_of(rewards, slopes, 0.0).abs().max() == 0


def test_networks_without_labels_and_their_parameters_are_left_alone() -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(1, 1).double()
    model = reg_engine.Denoiser(lambda x, t, cond: linear(x), "sample", SCHEDULE, (1,))
    framed = reg_engine.Denoiser(_Named(linear), "sample", SCHEDULE, (1,))
    found = [
        chain_golden(d, DDPM, 3, GRID, lambda x: x[:, 0], 1.0, 2, gen()) for d in (model, framed)
    ]
    torch.testing.assert_close(*found)
    assert all(p.requires_grad and p.grad is None for p in linear.parameters())


class _Named(torch.nn.Module):
    """A network that insists on being asked without labels."""

    def __init__(self, linear: torch.nn.Module) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        assert cond is None
        out: Tensor = self.linear(x)
        return out


def pndm() -> Table:
    return table("pndm", SCHEDULE, 10)


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ({"index": 20}, "index"),
        ({"index": -1}, "index"),
        ({"x": GRID[:, 0]}, "x"),
        ({"x": torch.zeros(3, 1, dtype=torch.long)}, "x"),
        ({"repeats": 0}, "repeats"),
        ({"block": 0}, "block"),
        ({"w": -1.0}, "w"),
        ({"w": math.nan}, "w"),
        ({"cond": torch.zeros(5, dtype=torch.long)}, "cond"),
        ({"log_ratio": lambda x: x}, "log_ratio"),
        ({"table": "pndm"}, "table"),
    ],
)
def test_bad_input(change: dict[str, object], argument: str) -> None:
    given: dict[str, object] = {
        "denoiser": one_d().denoiser(0, schedule=SCHEDULE),
        "table": DDPM,
        "index": 17,
        "x": GRID,
        "log_ratio": lambda x: x[:, 0],
        "w": 1.0,
        "repeats": 2,
        "generator": gen(),
        **change,
    }
    if given["table"] == "pndm":
        given["table"], given["index"] = pndm(), 0
    with pytest.raises(InputError) as caught:
        chain_golden(**given)  # type: ignore[arg-type]
    assert caught.value.argument == argument


# Infinitely many chains.


def test_the_limit_of_gaussian_chains_is_closed_form() -> None:
    """One Gaussian, a quadratic reward: every integral is Gaussian."""
    sharp, centre = 3.0, 1.1
    m = GaussianMixture(torch.tensor([[0.7]], dtype=F64), 0.4)

    def rewards(x0: Tensor) -> Tensor:
        return torch.cat([-0.5 * w * sharp * (x0 - centre) ** 2 for w in (1.0, 4.0)], 1)

    found = chain_limit(m.denoiser(0, schedule=SCHEDULE), DDPM, GRID, rewards)
    slope, shift, spread = 1.0, 0.0, 0.0  # x_0 = slope x_t + shift + N(0, spread)
    for index in range(19, -1, -1):
        row = DDPM.rows[index]
        gain = row.alpha * 0.16 / (row.alpha**2 * 0.16 + row.sigma**2)
        shift += slope * row.b[0] * (1 - gain * row.alpha) * 0.7
        spread += (slope * row.c) ** 2
        slope *= row.a + row.b[0] * gain
        for column, w in enumerate((1.0, 4.0)):
            wanted = -slope * (slope * GRID + shift - centre) / (spread + 1 / (w * sharp))
            got = found[index, :, column : column + 1]
            torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ({"x": torch.zeros(3, 2, dtype=F64)}, "x"),
        ({"nodes": 400}, "nodes"),
        ({"table": table("ddpm", SCHEDULE, 3, times=[19.0, 9.0, 4.0, 1.0])}, "table"),
        ({"table": table("pndm", SCHEDULE, 10)}, "table"),
    ],
)
def test_limit_bad_input(change: dict[str, Any], argument: str) -> None:
    given = {"table": DDPM, "x": GRID, **change}
    with pytest.raises(InputError) as caught:
        chain_limit(one_d().denoiser(0, schedule=SCHEDULE), log_rewards=lambda x0: x0, **given)
    assert caught.value.argument == argument
