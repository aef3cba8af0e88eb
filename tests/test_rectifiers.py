"""Every estimator against dense Jacobians (float64), and what each refuses."""

from __future__ import annotations

import pytest
import torch
from rectifier_cases import Net, point
from torch import Tensor

from reg_engine import EstimatorError, InputError
from reg_engine.guidance.directions import Delta
from reg_engine.networks.conditioning import take
from reg_engine.networks.point import Point
from reg_engine.noise import SampleNoise
from reg_engine.rectifiers import (
    FD,
    JVP,
    VJP,
    Diagonal,
    DiagonalBatched,
    FDBatched,
    Paper,
    as_rectify,
    make,
)
from reg_engine.rectifiers.auto import choose


def dense(p: Point) -> tuple[Tensor, Tensor, Tensor]:
    """(K (B, n, n), cond, delta), K from torch.func.jacrev sample by sample."""
    n = p.x[0].numel()
    rows = []
    for k in range(len(p.x)):
        label = take(p.cond, slice(k, k + 1))
        jacobian = torch.func.jacrev(lambda x, c=label: p.denoiser(x, p.row.t, c))(p.x[k : k + 1])
        rows.append(p.alpha * jacobian.reshape(n, n))
    cond = p.denoiser(p.x, p.row.t, p.cond)
    ref = p.denoiser(p.x, p.row.t, torch.full_like(p.cond, 3))
    return torch.stack(rows), cond, cond - ref


def apply(matrix: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("bij,bj->bi", matrix, v.flatten(1)).reshape_as(v)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction", "flow", "edm"])
def test_every_estimator_is_the_product_it_says(prediction: str) -> None:
    p = point(prediction)
    k, cond, delta = dense(p)
    wanted = {
        "paper": k.sum(1).reshape_as(delta) * delta,
        "vjp": apply(k.mT, delta),
        "jvp": apply(k, delta),
        "fd": apply(k, delta),
    }
    # K is not symmetric here, so K delta and K^T delta cannot stand in for each other.
    assert (wanted["vjp"] - wanted["jvp"]).norm() > 1e-2 * wanted["vjp"].norm()
    for name, exact in wanted.items():
        got_cond, got, got_delta = make(name)(p, Delta())
        tolerance = 1e-5 if name == "fd" else 1e-12
        assert torch.allclose(got_cond, cond, rtol=1e-12, atol=1e-12)
        assert torch.allclose(got_delta, delta, rtol=1e-10, atol=1e-12)
        assert (got - exact).norm() <= tolerance * exact.norm(), name


def test_difference_error_falls_with_the_step() -> None:
    p = point()
    k, _, delta = dense(p)
    exact = apply(k, delta)
    errors = [float((FD(rho)(p, Delta())[1] - exact).norm()) for rho in (1e-2, 1e-3, 1e-4)]
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize("name", ["fd", "fd_batched"])
def test_a_difference_at_zero_is_a_product_too(name: str) -> None:
    p = point()
    p.x[0] = 0.0
    k, _, delta = dense(p)
    exact, got = apply(k, delta), make(name)(p, Delta())[1]
    assert (got - exact).norm() <= 1e-5 * exact.norm()


def test_diagonal_converges_to_the_diagonal() -> None:
    p = point()
    k, _, delta = dense(p)
    exact = torch.diagonal(k, dim1=1, dim2=2).reshape_as(delta)
    # Variance of Hutchinson's estimate for element i: sum of squares of row i off the diagonal.
    off = (k - torch.diag_embed(torch.diagonal(k, dim1=1, dim2=2))).square().sum(1)
    probes = 400
    factor = Diagonal(probes=probes)(p, Delta())[1] / delta
    error = (factor - exact).flatten(1)
    assert (error.abs() <= 5 * (off / probes).sqrt() + 1e-12).all()


@pytest.mark.parametrize("probes", [1, 3])
def test_batched_diagonal_is_hutchinsons_estimate(probes: int) -> None:
    """mean_i z_i * (K z_i) * delta with the samples' own signs, to the error of a difference."""
    p = point()
    k, cond, delta = dense(p)
    source = SampleNoise(list(range(len(p.x))), "probes")
    signs = [source.signs(p.x) for _ in range(probes)]
    exact = sum(z * apply(k, z) for z in signs) / probes * delta
    got_cond, got, got_delta = DiagonalBatched(probes=probes)(p, Delta())
    assert torch.allclose(got_cond, cond, rtol=1e-12, atol=1e-12)
    assert torch.allclose(got_delta, delta, rtol=1e-10, atol=1e-12)
    assert (got - exact).norm() <= 1e-5 * exact.norm()


@pytest.mark.parametrize("rectifier", [FDBatched(), JVP()])
def test_lagged_product_is_exact_along_the_lag_and_second_pass_without(rectifier: object) -> None:
    p = point()
    k, _, delta = dense(p)
    first = rectifier(p, Delta())[1]  # no lag yet: a second pass
    assert torch.allclose(first, apply(k, delta), rtol=1e-4, atol=1e-9)
    p.memory["delta"] = -2.5 * delta  # parallel: the correction must rescale it exactly
    again = rectifier(p, Delta())[1]
    assert torch.allclose(again, apply(k, delta), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("rectifier", [FDBatched(), JVP()])
def test_vanished_lag_takes_the_exact_product_for_that_sample_alone(rectifier: object) -> None:
    p = point()
    k, _, delta = dense(p)
    lag = torch.randn_like(delta)
    lag[1] = 0
    p.memory["delta"] = lag
    got = rectifier(p, Delta())[1]
    exact = apply(k, delta)
    assert torch.allclose(got[1], exact[1], rtol=1e-4, atol=1e-9)
    norm = (lag * lag).flatten(1).sum(1).clamp_min(1e-300)[:, None, None]
    a = (delta * lag).flatten(1).sum(1)[:, None, None] / norm
    r = (apply(k, lag) * lag).flatten(1).sum(1)[:, None, None] / norm
    formula = a * apply(k, lag) + r * (delta - a * lag)
    assert torch.allclose(got[[0, 2]], formula[[0, 2]], rtol=1e-4, atol=1e-9)


class Cut(Net):
    """A black box: neither reverse nor forward mode passes."""

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return torch.from_numpy(super().forward(x.detach(), t, cond).detach().numpy().copy())


@pytest.mark.parametrize("name", ["paper", "vjp", "diagonal", "jvp"])
def test_black_box_refuses_derivatives_and_serves_differences(name: str) -> None:
    p = point(net=Cut().double())
    with pytest.raises(EstimatorError, match="fd_batched"):
        make(name)(p, Delta())
    k, _, delta = dense(point())
    assert torch.allclose(make("fd")(p, Delta())[1], apply(k, delta), rtol=1e-4, atol=1e-9)


def test_auto_follows_memory_and_ability() -> None:
    p = point()
    rectifier, reason = choose(p, 3, None)
    assert rectifier.name == "vjp" and "budget" in reason
    assert choose(p, 3, 1)[0].name == "jvp"
    rectifier, reason = choose(point(net=Cut().double()), 3, None)
    assert rectifier.name == "fd_batched"
    assert "no reverse mode" in reason and "no forward mode" in reason


def test_names_and_options_are_checked() -> None:
    assert as_rectify(None) is None
    with pytest.raises(InputError, match="Did you mean 'paper'"):
        as_rectify("papr")
    with pytest.raises(InputError, match="rectify"):
        as_rectify(VJP)  # the class, not a value
    for bad in (
        lambda: FD(0.0),
        lambda: FD(float("nan")),
        lambda: Diagonal(probes=0),
        lambda: DiagonalBatched(probes=0),
        lambda: Paper(memory_budget=0),
    ):
        with pytest.raises(InputError):
            bad()
