"""The mixture's closed forms and its exact network, against autograd and Bayes' rule."""

from __future__ import annotations

import pytest
import torch
from oracle_cases import F64, correlated, generator, labels, noisy

from reg_engine import schedules
from reg_engine.networks.preconditioning import PREDICTIONS
from reg_engine.oracles import GaussianMixture, one_d, two_class_2d

LEVELS = [(1.0, 0.03), (1.0, 0.4), (1.0, 5.0), (0.6, 0.8), (0.05, 0.99)]
MIXTURES = {"2d": two_class_2d, "1d": one_d, "correlated": correlated, "3d": lambda: correlated(3)}


@pytest.fixture(params=MIXTURES)
def mixture(request: pytest.FixtureRequest) -> GaussianMixture:
    return MIXTURES[request.param]()


def test_log_prob_is_the_sum_of_gaussians() -> None:
    m = correlated()
    covariance = m.basis @ torch.diag_embed(m.variances) @ m.basis.mT
    x = noisy(m, 0.6, 0.8)
    for y in range(m.num_classes + 1):
        density = torch.zeros(12, dtype=F64)
        for k in range(5):
            normal = torch.distributions.MultivariateNormal(
                0.6 * m.means[k], 0.36 * covariance[k] + 0.64 * torch.eye(2, dtype=F64)
            )
            density += m.log_weights[y, k].exp() * normal.log_prob(x).exp()
        torch.testing.assert_close(
            m.log_prob(x, 0.6, 0.8, y), density.log(), rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize(("alpha", "sigma"), LEVELS)
def test_tweedie(mixture: GaussianMixture, alpha: float, sigma: float) -> None:
    """score = grad log p; denoised = (x + sigma^2 score)/alpha; K = I + sigma^2 grad score."""
    x, y = noisy(mixture, alpha, sigma).requires_grad_(), labels(mixture)
    (score,) = torch.autograd.grad(mixture.log_prob(x, alpha, sigma, y).sum(), x, create_graph=True)
    rows = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0] for column in score.T]
    eye = torch.eye(mixture.dim, dtype=F64)
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(mixture.score(x, alpha, sigma, y), score, **close)
    torch.testing.assert_close(
        alpha * mixture.denoised(x, alpha, sigma, y), x + sigma**2 * score, **close
    )
    k = mixture.jacobian(x, alpha, sigma, y)
    torch.testing.assert_close(k, eye + sigma**2 * torch.stack(rows, 1), **close)
    torch.testing.assert_close(
        k, (alpha / sigma) ** 2 * mixture.covariance(x, alpha, sigma, y), **close
    )
    torch.testing.assert_close(k, k.mT, rtol=0, atol=1e-13)
    assert torch.linalg.eigvalsh(k).min() > -1e-12


def test_k_at_both_ends(mixture: GaussianMixture) -> None:
    y, eye = labels(mixture), torch.eye(mixture.dim, dtype=F64)
    clean = mixture.sample(12, generator=generator())
    torch.testing.assert_close(mixture.jacobian(clean, 1.0, 0.0, y), eye.expand(12, -1, -1))
    # Not only at zero: the approach is quadratic in sigma.
    gap = [float((mixture.jacobian(clean, 1.0, s, y) - eye).abs().max()) for s in (1e-3, 1e-4)]
    assert gap[0] < 0.05 and gap[1] == pytest.approx(gap[0] / 100, rel=0.05)
    x = noisy(mixture, 1.0, 1e3)
    tail = [float(mixture.jacobian(x * s, 1.0, 1e3 * s, y).abs().max()) for s in (1, 10)]
    assert tail[0] < 1e-4 and tail[1] == pytest.approx(tail[0] / 100, rel=0.05)


def test_class_posterior_is_bayes() -> None:
    m = correlated()
    x = noisy(m, 0.6, 0.8)
    posterior = m.class_posterior(x, 0.6, 0.8)
    joint = [m.log_prob(x, 0.6, 0.8, y) + m.log_prior[y] for y in range(3)]
    wanted = torch.stack(joint, 1) - m.log_prob(x, 0.6, 0.8)[:, None]
    torch.testing.assert_close(posterior, wanted, rtol=1e-12, atol=1e-12)


def test_posterior_is_bayes() -> None:
    """p(x_0|x_t,y) from its components = p(x_t|x_0) p(x_0|y) / p(x_t|y) at random x_0."""
    m = correlated()
    x, y = noisy(m, 0.6, 0.8), labels(m)
    x0 = m.sample(12, generator=generator(5))
    weights, means, covariances = m.posterior(x, 0.6, 0.8, y)
    normal = torch.distributions.MultivariateNormal(means, covariances)
    got = (weights + normal.log_prob(x0[:, None])).logsumexp(-1)
    forward = torch.distributions.Normal(0.6 * x0, 0.8).log_prob(x).sum(-1)
    wanted = forward + m.log_prob(x0, y=y) - m.log_prob(x, 0.6, 0.8, y)
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


def test_tensor_levels_and_labels_are_the_rows() -> None:
    m = correlated()
    x, y = noisy(m, 1.0, 1.0), labels(m)
    alpha, sigma = torch.linspace(0.1, 1, 12, dtype=F64), torch.linspace(0.2, 3, 12, dtype=F64)
    for method in (m.log_prob, m.denoised, m.score, m.jacobian, m.covariance):
        rows = [
            method(x[i : i + 1], float(alpha[i]), float(sigma[i]), int(y[i])) for i in range(12)
        ]
        torch.testing.assert_close(
            method(x, alpha, sigma, y), torch.cat(rows), rtol=1e-12, atol=1e-12
        )


def test_samples_have_the_moments_of_their_class() -> None:
    m = correlated()
    for y in range(4):
        x = m.sample(40_000, y, generator(y))
        weights = m.log_weights[y].exp()
        mean = weights @ m.means
        within = m.basis @ torch.diag_embed(m.variances) @ m.basis.mT
        centred = m.means - mean
        covariance = torch.einsum("k,kij->ij", weights, within) + (weights * centred.T) @ centred
        assert torch.allclose(x.mean(0), mean, atol=5 * float(covariance.amax() / 40_000) ** 0.5)
        assert torch.allclose(x.T.cov(), covariance, rtol=0.05, atol=0.02)


# -- the network ----------------------------------------------------------------------------------

SCHEDULES = [
    (schedules.EDM(), (0.05, 0.7, 20.0)),
    (schedules.VPLinear(), (3.0, 300.0, 700.5)),
    (schedules.Flow(), (0.05, 0.4, 0.9)),
]


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(("schedule", "times"), SCHEDULES)
def test_every_prediction_converts_to_one_denoised(
    prediction: str, schedule: schedules.Schedule, times: tuple[float, ...]
) -> None:
    m = two_class_2d()
    model = m.denoiser(prediction=prediction, schedule=schedule)
    assert (model.num_classes, model.null_cond, model.sample_shape) == (2, 2, (2,))
    for t in times:
        alpha, sigma = schedule(t)
        x, y = noisy(m, alpha, sigma), labels(m)
        got, wanted = model(x, t, y), m.denoised(x, alpha, sigma, y)
        # epsilon is multiplied by the noise level on its way to x_0, and its rounding with it.
        scale = max(1.0, sigma / alpha)
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12 * scale)
        single = model(x.float(), t, y)
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), wanted, rtol=0, atol=2e-5 * scale)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_network_differentiates_both_ways_to_k(prediction: str) -> None:
    m, schedule = two_class_2d(), schedules.VPLinear()
    model, t = m.denoiser(prediction=prediction, schedule=schedule), 250.0
    alpha, sigma = schedule(t)
    x, y = noisy(m, alpha, sigma), labels(m)
    v = torch.randn(12, 2, dtype=F64, generator=generator(7))
    kv = (m.jacobian(x, alpha, sigma, y) @ v[..., None])[..., 0]
    _, forward = torch.func.jvp(lambda z: model(z, t, y), (x,), (v,))
    z = x.clone().requires_grad_()
    (reverse,) = torch.autograd.grad(model(z, t, y), z, v)
    torch.testing.assert_close(alpha * forward, kv, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(alpha * reverse, kv, rtol=1e-10, atol=1e-11)


def test_fixed_label_ignores_the_conditioning() -> None:
    m = two_class_2d()
    x = noisy(m, 1.0, 0.5)
    fixed, free = m.denoiser(y=1), m.denoiser()
    assert torch.equal(fixed(x, 0.5, labels(m)), free(x, 0.5, torch.ones(12, dtype=torch.long)))


@pytest.mark.parametrize("sigma", [0.0, 0.4])
def test_the_log_ratio_is_bayes_rule(sigma: float) -> None:
    """Bayes' rule: log p(x_t|y)/p(x_t) = log p(y|x_t) - log p(y); 0 for the reference."""
    m = correlated()
    x, y = noisy(m, 0.9, sigma), torch.arange(12) % 3
    wanted = m.class_posterior(x, 0.9, sigma)[torch.arange(12), y] - m.log_prior[y]
    torch.testing.assert_close(m.log_ratio(x, 0.9, sigma, y), wanted)
    assert m.log_ratio(x, 0.9, sigma, m.num_classes).abs().max() == 0
