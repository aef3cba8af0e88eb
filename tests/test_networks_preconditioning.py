"""Preconditioning: floats and tensors agree, the ends are said, unknown names are refused."""

from __future__ import annotations

import math

import pytest
import torch

from reg_engine import Denoiser, InputError, schedules
from reg_engine.networks.preconditioning import PREDICTIONS, preconditioning


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_coefficients_agree_between_floats_and_tensors(prediction: str) -> None:
    numbers = preconditioning(prediction, 0.8, 0.6, 0.7)
    tensors = preconditioning(prediction, *torch.tensor([0.8, 0.6], dtype=torch.float64), 0.7)
    assert [float(t) for t in tensors] == pytest.approx(numbers, rel=1e-14)


@pytest.mark.parametrize("sigma", [0.02, 0.5, 7.0])
def test_edm_is_table_one_of_karras(sigma: float) -> None:
    c_in, c_skip, c_out = preconditioning("edm", 1.0, sigma, 0.5)
    assert c_in == pytest.approx(1 / math.sqrt(sigma**2 + 0.25))
    assert c_skip == pytest.approx(0.25 / (sigma**2 + 0.25))
    assert c_out == pytest.approx(sigma * 0.5 / math.sqrt(sigma**2 + 0.25))


def test_pure_noise_serves_flow_and_names_what_cannot_be_known() -> None:
    """At t = 1 of a flow x_t is noise: u still gives x_0 = x_t - u, epsilon says nothing of it."""
    x, u = torch.randn(2, 3, 4, dtype=torch.float64)
    labels = torch.zeros(3, dtype=torch.long)
    flow = Denoiser(lambda z, t, c: u, "flow", schedules.Flow(), (4,))
    assert torch.allclose(flow(x, 1.0, labels), x - u)
    for prediction in ("epsilon", "score", "edm"):
        view = Denoiser(lambda z, t, c: u, prediction, schedules.Flow(), (4,))
        with pytest.raises(InputError, match="alpha = 0"):
            view(x, 1.0, labels)


@pytest.mark.parametrize(
    ("spelled", "meant"),
    [
        ("eps", "'epsilon'"),
        ("noise", "'epsilon'"),
        ("x0", "'sample'"),
        ("X_0", "'sample'"),
        ("denoised", "'sample'"),
        ("v", "'v_prediction'"),
        ("velocity", "'flow' (eps - x_0) or 'v_prediction'"),
        ("flow_prediction", "'flow'"),
    ],
)
def test_names_used_elsewhere_are_understood(spelled: str, meant: str) -> None:
    with pytest.raises(InputError) as caught:
        Denoiser(lambda z, t, c: z, spelled, schedules.Flow(), (4,))
    assert caught.value.argument == "prediction" and meant in caught.value.remedy.split("?")[0]


def test_a_network_of_reverse_time() -> None:
    """x_0 - eps, time 0 = noise: a function that turns both is all that Flow() needs."""

    def reverse(x: torch.Tensor, time: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        assert bool((time == 0.25).all())
        return x_0 - eps

    x_0, eps = torch.randn(2, 3, 4, dtype=torch.float64)
    model = Denoiser(lambda x, t, y: -reverse(x, 1 - t, y), "flow", schedules.Flow(), (4,))
    x = 0.25 * x_0 + 0.75 * eps
    assert torch.allclose(model(x, 0.75, torch.zeros(3)), x_0, rtol=1e-12)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="v_prediction"):
        preconditioning("v_predicton", 1.0, 1.0)
    with pytest.raises(InputError, match="input_scaling"):
        preconditioning("epsilon", 1.0, 1.0, input_scaling="unit")
