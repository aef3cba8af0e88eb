"""The arithmetic against its formulas."""

from __future__ import annotations

import torch

from reg_engine import reference


def tensors(count: int) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(3, 2, 5, dtype=torch.float64, generator=g) for _ in range(count)]


def test_combine_and_neutral_weight() -> None:
    cond, term = tensors(2)
    assert torch.equal(reference.combine(cond, term, 2.0), cond + 2 * term)
    assert reference.combine(cond, term, 0.0) is cond
    assert reference.combine(cond, None, 3.0) is cond


def test_guided_step_is_the_formula() -> None:
    x, cond, term, h1, h2, noise = tensors(6)
    x_s, d = reference.guided_step(
        x, cond, term, 1.5, (h1, h2), noise, 0.3, -0.7, 0.9, (0.2, 0.0, -0.4), 0.1
    )
    wanted_d = 0.3 * x - 0.7 * (cond + 1.5 * term)
    assert torch.allclose(d, wanted_d, rtol=1e-14)
    assert torch.allclose(x_s, 0.9 * x + 0.2 * wanted_d - 0.4 * h2 + 0.1 * noise, rtol=1e-13)


def test_short_history_leaves_the_missing_terms_out() -> None:
    x, cond = tensors(2)
    x_s, d = reference.solver_step(x, cond, (), None, 0.0, 1.0, 0.5, (2.0, 9.0), 0.0)
    assert torch.equal(d, cond)
    assert torch.allclose(x_s, 0.5 * x + 2 * cond)


def test_lagged_product_on_dense_matrices() -> None:
    """K = s I: exact for every lag. Any K: exact along the lag."""
    delta, lag = tensors(2)
    assert torch.allclose(reference.lagged_product(delta, lag, 0.4 * lag), 0.4 * delta, rtol=1e-12)
    matrix = torch.randn(10, 10, dtype=torch.float64)
    along = 3.0 * lag
    k = (lag.flatten(1) @ matrix.T).reshape_as(lag)
    assert torch.allclose(reference.lagged_product(along, lag, k), 3 * k, rtol=1e-12)
    assert torch.equal(reference.lagged_product(delta, 0 * lag, 0 * lag), 0 * delta)
