"""Flow matching and EDM: the diffusers schedulers and the solver tables give the same samples."""

from __future__ import annotations

import math
from typing import Any

import pytest
from diffusers_loop import STEPS, TOLERANCE, Net, flow_denoised, relative_error, tolerance
from torch import Tensor

from reg_engine.solvers import Row

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")  # theirs

DPM, UNIPC = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"
SDE = {"algorithm_type": "sde-dpmsolver++"}
SVD = {"beta_schedule": "scaled_linear", "beta_start": 8.5e-4, "beta_end": 0.012}


@pytest.mark.parametrize("levels", [None, "karras", "exponential", "beta"])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_matching_equals_diffusers(shift: float, levels: str | None, monkeypatch: Any) -> None:
    spaced = {f"use_{levels}_sigmas": True} if levels else {}
    for steps in STEPS:
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift, **spaced)
        error = relative_error(scheduler, steps, monkeypatch, flow_denoised)
        assert error <= TOLERANCE, steps


@pytest.mark.parametrize("kind", ["exponential", "linear"])
@pytest.mark.parametrize("terminal", [None, 0.02])
def test_dynamic_shifting_equals_diffusers(
    kind: str, terminal: float | None, monkeypatch: Any
) -> None:
    for steps in STEPS[1:] if terminal else STEPS:
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, time_shift_type=kind, shift_terminal=terminal
        )
        error = relative_error(scheduler, steps, monkeypatch, flow_denoised, mu=0.9)
        assert error <= TOLERANCE, steps


@pytest.mark.parametrize("shift", [1.0, 5.0])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [(DPM, {}), (DPM, SDE), (UNIPC, {}), (UNIPC, {"solver_order": 3}), (UNIPC, {"mu": 1.1})],
)
def test_flow_sigmas_equal_diffusers(
    kind: str, settings: Any, shift: float, monkeypatch: Any
) -> None:
    mu = settings.get("mu")
    own = {k: v for k, v in settings.items() if k != "mu"} | {
        "use_dynamic_shifting": mu is not None
    }
    for steps in STEPS:
        scheduler = getattr(diffusers, kind)(
            use_flow_sigmas=True, flow_shift=shift, prediction_type="flow_prediction", **own
        )
        error = relative_error(scheduler, steps, monkeypatch, flow_denoised, cut=True, mu=mu)
        assert error <= TOLERANCE, steps


def edm_denoised(net: Net, x: Tensor, row: Row, data: float = 0.5) -> Tensor:
    n = row.sigma / row.alpha
    spread = math.hypot(n, data)
    return (data / spread) ** 2 * x + n * data / spread * net(x / spread, math.log(n) / 4)


@pytest.mark.parametrize("levels", ["karras", "exponential"])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("EDMEulerScheduler", {}),
        ("EDMDPMSolverMultistepScheduler", {}),
        ("EDMDPMSolverMultistepScheduler", SDE),
    ],
)
def test_edm_equals_diffusers(kind: str, settings: Any, levels: str, monkeypatch: Any) -> None:
    for steps in STEPS[levels == "exponential" :]:
        scheduler = getattr(diffusers, kind)(sigma_schedule=levels, **settings)
        error = relative_error(scheduler, steps, monkeypatch, edm_denoised)
        assert error <= TOLERANCE, steps


@pytest.mark.parametrize("spacing", ["leading", "linspace"])
def test_continuous_times_equal_diffusers(spacing: str, monkeypatch: Any) -> None:
    """Stable Video Diffusion: v under EDM's levels is `edm` for data of deviation 1, turned."""

    def denoised(net: Net, x: Tensor, row: Row) -> Tensor:
        turned = lambda x, t: -net(x, t)  # noqa: E731
        return edm_denoised(turned, x, row, data=1.0)  # type: ignore[arg-type]

    for steps in STEPS:
        scheduler = diffusers.EulerDiscreteScheduler(
            **SVD,
            timestep_type="continuous",
            prediction_type="v_prediction",
            use_karras_sigmas=True,
            sigma_min=0.002,
            sigma_max=700.0,
            timestep_spacing=spacing,
        )
        error = relative_error(scheduler, steps, monkeypatch, denoised)
        assert error <= tolerance(scheduler), steps
