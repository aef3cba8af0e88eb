"""Golden guidance on one shared grid, against the oracle and against closed forms."""

from __future__ import annotations

import pytest
import torch
from reg_2d_cases import CHAIN, F64, GRIDS, SHAPE, points_at

from reg_engine import InputError, schedules
from reg_engine.experiments.reg_2d.golden import CFG, WORSE
from reg_engine.experiments.reg_2d.models import SCHEDULE
from reg_engine.oracles import GaussianMixture, TiltedGrid, grid_denoiser, one_d, two_class_2d


@pytest.mark.parametrize("index", [1, 16, 22, 24])
def test_the_shared_grid_gives_the_oracles_golden_guidance(index: int) -> None:
    row = CHAIN.rows[index]
    x, labels = points_at(row, 2)
    for label in (0, 1):
        at = x[labels == label]
        for kind, mixture, y in (
            (CFG, SHAPE.mixture, label),
            (WORSE, SHAPE.against_blurred(label), 0),
        ):
            found = GRIDS[kind, label].golden(at, row.alpha, row.sigma, 2.0)
            wanted = mixture.golden(at, row.t, 2.0, y, SCHEDULE)
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_without_weight_the_grid_gives_the_closed_form_even_far_away() -> None:
    far = torch.tensor([[2.6, 2.6], [-2.6, -2.6]], dtype=F64)  # products of kernels underflow
    row = CHAIN.rows[-1]
    for x in (points_at(row)[0], far):
        found = GRIDS[CFG, 1].denoised(x, row.alpha, row.sigma, 0.0)
        wanted = SHAPE.mixture.denoised(x, row.alpha, row.sigma, 1)
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_many_weights_do_not_fill_the_memory() -> None:
    grid, x = TiltedGrid(two_class_2d()), torch.zeros(1, 2, dtype=F64)
    first = grid.denoised(x, 1.0, 0.3, 1.0)
    for k in range(40):
        grid.denoised(x, 1.0, 0.3, 1 + k / 20)
    assert len(grid._weights) == 16
    torch.testing.assert_close(grid.denoised(x, 1.0, 0.3, 1.0), first, rtol=0, atol=0)


def test_the_result_keeps_the_dtype() -> None:
    x = torch.zeros(2, 2)
    assert GRIDS[CFG, 0].denoised(x, 0.5, 0.8, 1.0).dtype == torch.float32
    assert GRIDS[CFG, 0].golden(x.double(), 0.5, 0.8, 1.0).dtype == F64


def test_the_golden_denoiser_serves_both_labels_and_several_times() -> None:
    denoiser = grid_denoiser({y: GRIDS[CFG, y] for y in (0, 1)}, 1.0, SCHEDULE)
    row = CHAIN.rows[12]
    x, labels = points_at(row, 3)
    found = denoiser(x, row.t, labels)
    for label in (0, 1):
        at = labels == label
        wanted = GRIDS[CFG, label].denoised(x[at], row.alpha, row.sigma, 1.0)
        torch.testing.assert_close(found[at], wanted)


@pytest.mark.parametrize("w", [0.5, 4.0])
@pytest.mark.parametrize("sigma", [0.012, 0.2, 3.0])
def test_a_grid_that_finds_its_own_nodes_is_the_oracle(sigma: float, w: float) -> None:
    m = two_class_2d()
    for y in (0, 1):
        source = torch.Generator().manual_seed(5)
        noise = torch.randn(12, 2, dtype=F64, generator=source)
        x = m.sample(12, y, source) + sigma * noise
        wanted = m.tilted_posterior(x, 1.0, sigma, w, y).mean
        found = TiltedGrid(m, y).denoised(x, 1.0, sigma, w)
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.05, 0.7, 4.0])
def test_between_gaussians_the_tilted_posterior_is_a_gaussian(sigma: float) -> None:
    """Precisions add: (1 + w)/s^2 - w/r^2 of the target, (alpha/sigma)^2 of the kernel."""
    s, r, w, alpha = 0.4, 0.6, 1.5, 0.8
    centre = torch.tensor([0.7, -0.2], dtype=F64)
    reference = GaussianMixture(centre[None], r)
    m = GaussianMixture(torch.zeros(1, 2, dtype=F64), s, reference=reference)
    x = torch.linspace(-1, 1, 5, dtype=F64)[:, None] * torch.tensor([1.0, 0.5], dtype=F64)
    target, kernel = (1 + w) / s**2 - w / r**2, (alpha / sigma) ** 2
    wanted = (kernel * x / alpha - w / r**2 * centre) / (target + kernel)
    far = torch.full((2,), 6.0, dtype=F64)  # the target's mean lies 1.1 from the class's
    grid = TiltedGrid(m, nodes=801, box=(-far, far))
    torch.testing.assert_close(grid.denoised(x, alpha, sigma, w), wanted, rtol=1e-8, atol=1e-8)
    plain = kernel * x / alpha / (1 / s**2 + kernel)
    golden = alpha / sigma**2 * (wanted - plain)
    torch.testing.assert_close(grid.golden(x, alpha, sigma, w), golden, rtol=1e-6, atol=1e-6)


def test_the_denoiser_reads_its_schedule() -> None:
    m, schedule = two_class_2d(), schedules.VPLinear()
    times = torch.tensor([50.0, 600.0, 600.0], dtype=F64)
    x = torch.tensor([[0.1, 0.2], [-0.3, 0.4], [0.9, 0.0]], dtype=F64)
    net = grid_denoiser({0: TiltedGrid(m)}, 1.0, schedule).net
    got = net(x, times, torch.zeros(3, dtype=torch.long))
    for row, t, found in zip(x, times.tolist(), got, strict=True):
        wanted = m.tilted_posterior(row[None], *schedule(t), 1.0).mean[0]
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="mixture: has 1 dimensions"):
        TiltedGrid(one_d())
    with pytest.raises(InputError, match="nodes"):
        TiltedGrid(SHAPE.mixture, nodes=5)
    x = torch.zeros(1, 2, dtype=F64)
    for arguments, named in (((1.0, 0.0, 1.0), "sigma"), ((1.0, 0.5, -1.0), "w")):
        with pytest.raises(InputError, match=named):
            GRIDS[CFG, 0].denoised(x, *arguments)
