"""Golden guidance against the Renyi identity, dense sums, refinement and its own reported error."""

from __future__ import annotations

import warnings

import pytest
import torch
from oracle_cases import F64, correlated, embedded, generator, noisy
from torch import Tensor

from reg_engine import schedules
from reg_engine.oracles import GaussianMixture, one_d, two_class_2d


def renyi(m: GaussianMixture, x: Tensor, alpha: float, sigma: float, w: float) -> Tensor:
    """D_{1+w}(p(x_0|x_t,y) || p_ref(x_0|x_t)) of every x (B,), by Simpson's rule."""
    grid = torch.linspace(-5, 6, 20_001, dtype=F64)
    simpson = torch.full((20_001,), 2.0, dtype=F64)
    simpson[1::2], simpson[0], simpson[-1] = 4.0, 1.0, 1.0
    forward = torch.distributions.Normal(alpha * grid, sigma).log_prob(x[:, None])
    p, q = (
        forward + m.log_prob(grid[:, None], y=y) - m.log_prob(x[:, None], alpha, sigma, y)[:, None]
        for y in (0, 1)
    )
    terms = ((1 + w) * p - w * q).exp() * simpson
    return (terms.sum(-1) * float(grid[1] - grid[0]) / 3).log() / w


@pytest.mark.parametrize("t", [1.0, 7.0, 13.0, 19.0])
@pytest.mark.parametrize("w", [0.5, 1.0, 3.0])
def test_renyi_identity(t: float, w: float) -> None:
    """log E_t = w log r_t + w D_{1+w}, and its gradient, on the paper's 1-D setting (T = 20)."""
    m, schedule = one_d(), schedules.VPLinear(train_steps=20)
    alpha, sigma = schedule(t)
    x = torch.linspace(-1, 2, 31, dtype=F64)

    def excess(x: Tensor) -> Tensor:
        log_r = m.log_prob(x[:, None], alpha, sigma, 0) - m.log_prob(x[:, None], alpha, sigma, 1)
        return w * log_r + w * renyi(m, x, alpha, sigma, w)

    got = m.tilted_posterior(x[:, None], alpha, sigma, w)
    torch.testing.assert_close(got.log_e, excess(x), rtol=1e-8, atol=1e-8)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(excess(leaf).sum(), leaf)
    golden = m.golden(x[:, None], t, w, schedule=schedule)[:, 0]
    torch.testing.assert_close(golden, gradient, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("sigma", [0.01, 0.2, 2.0, 20.0])
def test_golden_quadrature_is_converged(sigma: float) -> None:
    """Refined from 97 to 193 nodes an axis the mean stays; the reported error covers the change."""
    m = two_class_2d()
    x, y = noisy(m, 1.0, sigma, 6), torch.arange(6) % 2
    fine = m.tilted_posterior(x, 1.0, sigma, 4.0, y, nodes=193)
    for nodes, tolerance in ((33, 1e-3), (97, 1e-9)):
        got = m.tilted_posterior(x, 1.0, sigma, 4.0, y, nodes=nodes)
        gap = (got.mean - fine.mean).abs()
        assert gap.max() <= tolerance
        assert (gap <= got.error + 1e-14).all()


@pytest.mark.parametrize("sigma", [0.1, 0.6, 3.0])
def test_golden_with_correlated_components_is_the_plain_sum(sigma: float) -> None:
    """Full covariances and unequal weights, against one fixed grid of 601 x 601 nodes."""
    m, w = correlated(), 1.5
    x, y = noisy(m, 0.8, sigma, 4), torch.tensor([0, 1, 2, 1])
    axis = torch.linspace(-6, 6, 601, dtype=F64)
    grid = torch.cartesian_prod(axis, axis)
    for row, label in zip(x, y.tolist(), strict=True):
        forward = torch.distributions.Normal(0.8 * grid, sigma).log_prob(row).sum(-1)
        log_p = forward + m.log_prob(grid, y=label)
        log_f = log_p + w * (m.log_prob(grid, y=label) - m.log_prob(grid))
        got = m.tilted_posterior(row[None], 0.8, sigma, w, label, nodes=257)
        close = {"rtol": 1e-8, "atol": 1e-8}
        torch.testing.assert_close(got.mean[0], log_f.softmax(0) @ grid, **close)
        torch.testing.assert_close(got.log_e[0], log_f.logsumexp(0) - log_p.logsumexp(0), **close)
        default = m.tilted_posterior(row[None], 0.8, sigma, w, label)
        assert ((default.mean - got.mean).abs() <= default.error + 1e-14).all()


@pytest.mark.parametrize("sigma", [0.05, 0.5, 4.0])
def test_golden_of_a_product_factorises_1d_2d(sigma: float) -> None:
    """A coordinate that says nothing about the class carries no guidance."""
    m = one_d()
    x = torch.linspace(-1, 2, 7, dtype=F64)[:, None]
    wide = torch.cat([x, x + 0.2], 1)
    golden = embedded(m).golden(wide, sigma, 2.0)
    torch.testing.assert_close(golden[:, :1], m.golden(x, sigma, 2.0), rtol=1e-7, atol=1e-7)
    assert golden[:, 1].abs().max() < 1e-7 / sigma**2


@pytest.mark.parametrize("sigma", [0.1, 0.5, 4.0])
def test_importance_sampled_golden_is_within_its_error(sigma: float) -> None:
    """In 3-D, the third coordinate independent and all turned, against the 2-D quadrature."""
    m, wide_m = two_class_2d(), embedded(two_class_2d())
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=F64, generator=generator(9)))[0]
    covariance = turn @ wide_m.basis @ torch.diag_embed(wide_m.variances) @ wide_m.basis.mT @ turn.T
    turned = GaussianMixture(wide_m.means @ turn.T, covariance, labels=torch.arange(8) // 4)
    y = torch.arange(24) % 2
    x = torch.cat([m.sample(1, int(k), generator(i)) for i, k in enumerate(y)])
    x = x + sigma * torch.randn(24, 2, dtype=F64, generator=generator(2))
    wide = torch.cat([x, torch.zeros(24, 1, dtype=F64)], 1)
    got = turned.tilted_posterior(
        wide @ turn.T, 1.0, sigma, 2.0, y, samples=20_000, generator=generator(4)
    )
    plane = m.tilted_posterior(x, 1.0, sigma, 2.0, y)
    rest = 0.3 * sigma**2 / (0.25 + sigma**2)  # denoised of the third coordinate at x_t = 0
    wanted = torch.cat([plane.mean, torch.full((24, 1), rest, dtype=F64)], 1) @ turn.T
    score = (got.mean - wanted) / got.error
    assert score.abs().max() < 4.5  # 72 numbers
    assert 0.5 < score.square().mean().sqrt() < 1.5  # the error is neither hidden nor inflated
    assert got.error.max() < 0.02 and got.ess.min() > 100
    log_e_error = 4.5 * (1 / got.ess - 1 / 20_000).clamp_min(0).sqrt()
    assert ((got.log_e - plane.log_e).abs() < log_e_error + 1e-6).all()


def test_importance_sampling_warns_of_few_effective_samples_and_repeats() -> None:
    m = embedded(two_class_2d())
    x = torch.tensor([[1.0, 0.0, 0.3]], dtype=F64)  # the heart of the other class
    with pytest.warns(RuntimeWarning, match="effective sample size"):
        first = m.golden(x, 0.15, 4.0, y=0, samples=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.equal(first, m.golden(x, 0.15, 4.0, y=0, samples=300))


def test_golden_without_weight_or_without_a_class_is_nothing() -> None:
    for m in (one_d(), two_class_2d(), correlated(3)):
        x = noisy(m, 1.0, 0.5, 4)
        assert m.golden(x, 0.5, 0.0).abs().max() < 1e-10
        assert m.golden(x, 0.5, 2.0, y=m.num_classes).abs().max() < 1e-9


def test_golden_denoiser_is_cond_plus_the_golden_step() -> None:
    m, schedule, t = two_class_2d(), schedules.VPLinear(), 400.0
    alpha, sigma = schedule(t)
    x, y = noisy(m, alpha, sigma), torch.arange(12) % 2
    wanted = m.denoised(x, alpha, sigma, y) + sigma**2 / alpha * m.golden(x, t, 2.0, y, schedule)
    model = m.golden_denoiser(2.0, schedule=schedule)
    torch.testing.assert_close(model(x, t, y), wanted, rtol=1e-10, atol=1e-10)
    assert model(x.float(), t, y).dtype == torch.float32
    fixed = m.golden_denoiser(2.0, y=1, schedule=schedule)
    torch.testing.assert_close(fixed(x, t, y)[1::2], wanted[1::2], rtol=1e-10, atol=1e-10)
