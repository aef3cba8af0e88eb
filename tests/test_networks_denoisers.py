"""Denoisers: every prediction is the same view, precision and time reach the network as
promised."""

from __future__ import annotations

import math

import pytest
import torch
from nets import CLASSES, SHAPE, TinyNet, tiny
from torch import Tensor, nn

from reg_engine import Denoiser, InputError, sample, schedules
from reg_engine.networks.preconditioning import PREDICTIONS
from reg_engine.rectifiers import RECTIFIERS

SCHEDULES = [schedules.VPLinear(), schedules.EDM(), schedules.Flow()]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_prediction_of_known_data_gives_it_back(
    prediction: str, schedule: schedules.Schedule
) -> None:
    """From x_0 and eps, each prediction by its definition; the view must return x_0."""
    t = float(schedule.time_of(1.3))
    alpha, sigma = schedule(t)
    x_0, eps = torch.randn(2, 5, *SHAPE, dtype=torch.float64)
    x = alpha * x_0 + sigma * eps
    by_definition = {
        "epsilon": eps,
        "score": -eps / sigma,
        "sample": x_0,
        "v_prediction": alpha * eps - sigma * x_0,
        "flow": eps - x_0,
    }
    if prediction == "edm":
        n, s = sigma / alpha, 0.5  # F = (D - c_skip x/alpha) / c_out, Karras et al. 2022, Eq. 7
        value = (x_0 - s**2 / (n**2 + s**2) * x / alpha) * math.sqrt(n**2 + s**2) / (n * s)
    else:
        value = by_definition[prediction]
    seen: list[tuple[Tensor, Tensor]] = []

    def net(z: Tensor, time: Tensor, cond: Tensor) -> Tensor:
        seen.append((z, time))
        return value

    view = Denoiser(net, prediction, schedule, SHAPE)
    got = view(x, t, torch.zeros(5, dtype=torch.long))
    assert torch.allclose(got, x_0, rtol=1e-12, atol=1e-12)
    assert torch.allclose(view.to_prediction(got, x, t), value, rtol=1e-9, atol=1e-9)
    wanted = math.log(sigma / alpha) / 4 if prediction == "edm" else t
    assert torch.allclose(seen[0][1], torch.full((5,), wanted, dtype=torch.float64))
    scale = 1 / math.sqrt(alpha**2 * 0.25 + sigma**2) if prediction == "edm" else 1
    assert torch.allclose(seen[0][0], scale * x)


def test_jacobian_is_with_respect_to_the_unscaled_state() -> None:
    """A VP epsilon network in sigma space: 1 - sigma J with J through c_in = 1/sqrt(1 +
    sigma^2)."""
    weight = torch.randn(3, 3, dtype=torch.float64)
    view = Denoiser(
        lambda x, t, c: x @ weight.T, "epsilon", schedules.EDM(), (3,), input_scaling="variance"
    )
    x, sigma = torch.randn(1, 3, dtype=torch.float64), 2.5
    labels = torch.zeros(1, dtype=torch.long)
    k = torch.func.jacrev(lambda v: view(v, sigma, labels))(x).reshape(3, 3)
    wanted = torch.eye(3).double() - sigma * weight / math.sqrt(1 + sigma**2)
    assert torch.allclose(k, wanted, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_network_dtype_only_at_the_call(dtype: torch.dtype) -> None:
    class Probe(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))
            self.seen: list[tuple[torch.dtype, torch.dtype]] = []

        def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            self.seen.append((x.dtype, t.dtype))
            return self.w * x

    net = Probe().to(dtype)
    view = Denoiser(net, "epsilon", schedules.VPLinear(), SHAPE)
    out = view(torch.randn(2, *SHAPE), 998.0, torch.zeros(2, dtype=torch.long))
    assert out.dtype == torch.float32
    assert net.seen == [(dtype, torch.float32)]  # bfloat16 would turn step 998 into 1000


def test_view_through_another_flow_starts_at_pure_noise() -> None:
    """alpha = 0 at t = 1 on both: x_t is the same, so the view is too."""
    own = tiny("flow", schedules.Flow())
    other = own.on(schedules.Flow(3.0))
    assert other is not own and other.at(1.0) == own.at(1.0)
    assert other.at(0.3) == pytest.approx(own.at(0.3), rel=1e-12)


def test_view_through_a_schedule_beyond_the_model_names_it() -> None:
    for own, beyond in ((schedules.EDM(), schedules.Flow()), (schedules.VPLinear(), Far())):
        view = tiny("sample", own).on(beyond)
        with pytest.raises(InputError, match=f"^schedule: {type(beyond).__name__}") as caught:
            view.at(beyond.prior_time)
        assert caught.value.argument == "schedule"
        assert all(map(math.isfinite, view.at(0.5)))


class Far(schedules.EDM):
    """A user's schedule with a parameter that is no field."""

    def __init__(self, sigma_max: float = 500.0) -> None:
        super().__init__(sigma_max=sigma_max)


def test_views_of_unequal_schedules_are_kept_apart() -> None:
    own = tiny("epsilon", schedules.VPLinear())
    first, second = Far(), Far(80.0)
    assert own.on(first) is own.on(first) and own.on(first) is not own.on(second)
    assert own.on(second).schedule is second


def test_view_through_another_schedule_is_the_same_point() -> None:
    own = tiny("epsilon", schedules.VPLinear())
    other = own.on(schedules.EDM())
    assert own.on(schedules.VPLinear()) is own
    t = 400.0
    alpha, sigma = own.schedule(t)
    x = torch.randn(2, *SHAPE)
    labels = torch.tensor([0, CLASSES])
    a, b = own(x, t, labels), other(x / alpha, sigma / alpha, labels)
    assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
    assert torch.allclose(
        other.to_prediction(b, x / alpha, sigma / alpha),
        own.to_prediction(a, x, t),
        rtol=1e-3,
        atol=1e-4,
    )


class Scribbler(TinyNet):
    """Writes into everything that it was given, once it has used it."""

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | dict[str, Tensor]) -> Tensor:
        labels = cond["y"] if isinstance(cond, dict) else cond
        out = super().forward(x, t, labels)
        with torch.no_grad():
            labels.fill_(1)
            t.zero_()
            x.data.fill_(7.0)
        return out


@pytest.mark.parametrize("rectify", [None, *RECTIFIERS])
@pytest.mark.parametrize("nested", [False, True])
def test_a_network_that_writes_into_its_arguments_gets_its_own(
    rectify: str | None, nested: bool
) -> None:
    labels = torch.tensor([0, 1, 2])
    cond = {"y": labels.clone()} if nested else labels.clone()
    null = {"y": torch.tensor([CLASSES])} if nested else torch.tensor(CLASSES)
    engine = {"rectify": rectify, "scale": 3.0, "steps": 4, "progress": False}
    scribbler = Denoiser(Scribbler(), "edm", schedules.EDM(), SHAPE, null)
    found = sample(scribbler, cond, **engine).samples
    assert torch.equal(found, sample(tiny(), labels, **engine).samples)
    for kept, before in ((cond, labels), (null, torch.tensor(CLASSES))):
        kept = kept["y"] if nested else kept
        assert torch.equal(kept, before.expand_as(kept)), "the caller's own tensor was written to"
