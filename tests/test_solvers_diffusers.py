"""Every solver against the diffusers scheduler of its name: same network, same noise, same result.

The schedulers hold alphas_cumprod and sigmas in float32, and some cast the state to float32 in
`step`; the engine's tables are float64. That rounding is all that the tolerances leave room for.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from loop import run
from torch import Tensor

from reg_engine.schedules import from_diffusers, solver_from_diffusers
from reg_engine.solvers import Row, table

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")  # theirs

TOLERANCE = 1e-5
BATCH, WIDTH, STEPS = 4, 6, (10, 25, 50)
BETAS: dict[str, dict[str, Any]] = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 8.5e-4, "beta_end": 0.012},
}
PLAIN = {"clip_sample": False}  # the engine never clips
FIRST = {"steps_offset": 1, "set_alpha_to_one": False}
SIGMA_MIN = {"final_sigmas_type": "sigma_min"}
# DDIM and PNDM step to t - 1000 // steps, a time of the grid under these two spacings only.
STRIDED = ("leading", "trailing")
SPACINGS = (*STRIDED, "linspace")
CASES: list[tuple[str, dict[str, Any], tuple[str, ...], dict[str, Any]]] = [
    ("DDPMScheduler", PLAIN, SPACINGS, {}),
    ("DDIMScheduler", PLAIN, STRIDED, {}),
    ("DDIMScheduler", PLAIN | FIRST, STRIDED, {"eta": 1.0}),
    ("DDIMScheduler", PLAIN, STRIDED, {"eta": 0.3}),
    ("PNDMScheduler", {}, STRIDED, {}),
    ("PNDMScheduler", {"skip_prk_steps": True, "steps_offset": 1}, STRIDED, {}),
    ("EulerDiscreteScheduler", {}, SPACINGS, {}),
    ("EulerDiscreteScheduler", SIGMA_MIN, SPACINGS, {}),
    ("EulerAncestralDiscreteScheduler", {}, SPACINGS, {}),
    ("HeunDiscreteScheduler", {}, SPACINGS, {}),
    ("DPMSolverMultistepScheduler", {}, SPACINGS, {}),
    ("DPMSolverMultistepScheduler", SIGMA_MIN, SPACINGS, {}),
    ("DPMSolverMultistepScheduler", SIGMA_MIN | {"lower_order_final": False}, SPACINGS, {}),
    ("DPMSolverMultistepScheduler", SIGMA_MIN | {"euler_at_final": True}, SPACINGS, {}),
]


class Net:
    """A fixed random MLP of (x, t) in float64, smooth in t; it notes the times it is asked at."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = (
            torch.randn(a, b, generator=generator, dtype=torch.float64) / a**0.5
            for a, b in ((WIDTH + 2, 16), (16, WIDTH))
        )
        self.times: list[float] = []

    def __call__(self, x: Tensor, t: float) -> Tensor:
        self.times.append(t)
        phase = torch.tensor([t / 1000, (t / 1000) ** 2], dtype=torch.float64)
        features = torch.cat([x.double(), phase.expand(len(x), 2)], dim=1)
        return torch.tanh(features @ self.first) @ self.second


def noises(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    shape = (count, BATCH, WIDTH)
    return list(torch.randn(shape, generator=generator, dtype=torch.float64))


def run_theirs(
    scheduler: Any, net: Net, steps: int, draws: list[Tensor], monkeypatch: Any, eta: float
) -> Tensor:
    """The diffusers loop, `draws` in place of its random numbers."""
    supply = iter(draws)
    unit = next(supply)
    module = importlib.import_module(type(scheduler).__module__)
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", lambda *args, **kwargs: next(supply))
    scheduler.set_timesteps(steps)
    scaled = getattr(scheduler, "scale_model_input", lambda x, t: x)
    extra = {"eta": eta} if eta else {}
    x = unit * float(getattr(scheduler, "init_noise_sigma", 1.0))
    for t in scheduler.timesteps:
        x = scheduler.step(net(scaled(x, t), float(t)), t, x, **extra).prev_sample
    return x


def vp_denoised(prediction: str) -> Callable[[Net, Tensor, Row], Tensor]:
    """Denoised from the network's output; scale_model_input of diffusers gives our x."""

    def denoised(net: Net, x: Tensor, row: Row) -> Tensor:
        out = net(x, row.t)
        return {
            "epsilon": lambda: (x - row.sigma * out) / row.alpha,
            "sample": lambda: out,
            "v_prediction": lambda: row.alpha * x - row.sigma * out,
        }[prediction]()

    return denoised


def relative_error(
    scheduler: Any,
    steps: int,
    monkeypatch: Any,
    denoised: Callable[..., Tensor],
    time_error: float = 1e-4,  # float32 holds 999 to 6e-5
    **options: Any,
) -> float:
    """max |ours - theirs| / max |theirs| of the final states; the times must agree too."""
    name, read = solver_from_diffusers(scheduler)
    rows = table(name, from_diffusers(scheduler), steps, **read | options)
    ours, theirs, draws = Net(), Net(), noises(steps + 1)
    start = rows.init_scale * draws[0]
    x = run(rows, lambda x, row: denoised(ours, x, row), start, draws[1:])
    y = run_theirs(scheduler, theirs, steps, draws, monkeypatch, options.get("eta", 0.0))
    if name.startswith(("euler", "heun")):  # diffusers' state is x / alpha there
        y = y * rows.rows[-1].alpha_s
    assert ours.times == pytest.approx(theirs.times, rel=0, abs=time_error)
    return float((x - y).abs().max() / y.abs().max())


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize(
    ("kind", "settings", "spacing", "options"),
    [(kind, settings, s, options) for kind, settings, all_s, options in CASES for s in all_s],
)
def test_equals_diffusers(
    kind: str, settings: Any, spacing: str, options: Any, betas: str, monkeypatch: Any
) -> None:
    for steps in STEPS:
        scheduler = getattr(diffusers, kind)(**BETAS[betas], **settings, timestep_spacing=spacing)
        error = relative_error(scheduler, steps, monkeypatch, vp_denoised("epsilon"), **options)
        assert error <= TOLERANCE, steps


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
@pytest.mark.parametrize("kind", ["DDIMScheduler", "EulerDiscreteScheduler", "DDPMScheduler"])
def test_other_predictions_equal_diffusers(kind: str, prediction: str, monkeypatch: Any) -> None:
    for steps in STEPS:
        scheduler = getattr(diffusers, kind)(
            **BETAS["scaled_linear"],
            prediction_type=prediction,
            **({} if kind.startswith("Euler") else PLAIN),
        )
        error = relative_error(scheduler, steps, monkeypatch, vp_denoised(prediction))
        assert error <= TOLERANCE, steps


def test_large_variance_equals_diffusers(monkeypatch: Any) -> None:
    for steps in STEPS:
        scheduler = diffusers.DDPMScheduler(variance_type="fixed_large", **PLAIN)
        error = relative_error(scheduler, steps, monkeypatch, vp_denoised("epsilon"))
        assert error <= TOLERANCE, steps


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("kind", ["EulerDiscreteScheduler", "HeunDiscreteScheduler"])
def test_karras_levels_equal_diffusers(kind: str, spacing: str, monkeypatch: Any) -> None:
    for steps in STEPS:
        scheduler = getattr(diffusers, kind)(
            **BETAS["scaled_linear"], timestep_spacing=spacing, use_karras_sigmas=True
        )
        # Inverting float32 levels, whose smallest is off by 8e-5, moves their times by 0.006.
        error = relative_error(
            scheduler, steps, monkeypatch, vp_denoised("epsilon"), time_error=1e-2
        )
        assert error <= TOLERANCE, steps


def test_karras_levels_of_dpm_solver() -> None:
    """The levels are those of diffusers; the times are not rounded to integers, as documented."""
    scheduler = diffusers.DPMSolverMultistepScheduler(**BETAS["linear"], use_karras_sigmas=True)
    scheduler.set_timesteps(25)
    rows = table("dpmpp_2m", from_diffusers(scheduler), 25).rows
    levels = np.array([row.sigma / row.alpha for row in rows])
    assert levels == pytest.approx(scheduler.sigmas.numpy()[:-1], rel=1e-4)  # float32 table
    assert [row.t for row in rows] == pytest.approx(scheduler.timesteps.tolist(), rel=0, abs=0.51)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_matching_equals_diffusers(shift: float, monkeypatch: Any) -> None:
    def denoised(net: Net, x: Tensor, row: Row) -> Tensor:
        return x - row.sigma * net(x, 1000 * row.t)  # diffusers' time is 1000 sigma

    for steps in STEPS:
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
        assert relative_error(scheduler, steps, monkeypatch, denoised) <= TOLERANCE, steps


def test_edm_equals_diffusers(monkeypatch: Any) -> None:
    def denoised(net: Net, x: Tensor, row: Row) -> Tensor:
        n = row.sigma / row.alpha
        spread = math.hypot(n, 0.5)
        return 0.25 / spread**2 * x + n * 0.5 / spread * net(x / spread, math.log(n) / 4)

    for steps in STEPS:
        error = relative_error(diffusers.EDMEulerScheduler(), steps, monkeypatch, denoised)
        assert error <= TOLERANCE, steps
