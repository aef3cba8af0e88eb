"""The diffusers schedulers that are known: which settings each one reads, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import settings as meaning
from .base import SPACED, Schedule
from .continuous import EDM
from .settings import Settings

__all__ = ["READERS", "REFUSED", "Reader"]


@dataclass(frozen=True)
class Reader:
    """How one scheduler class is read.

    Args:
        read: settings that are used -> diffusers' default.
        fixed: settings with one supported value -> (diffusers' default, that value).
        schedule, solver: what the settings mean.
        unused: settings without effect on times and steps.
    """

    read: Mapping[str, Any]
    fixed: Mapping[str, tuple[Any, Any]]
    schedule: Callable[[Settings], Schedule]
    solver: Callable[[Settings], tuple[str, Settings]]
    unused: frozenset[str] = field(default_factory=frozenset)

    def known(self) -> set[str]:
        return {*self.read, *self.fixed, *self.unused}


REFUSED = {
    name: "is for networks distilled to a few steps, which have their guidance inside: there is no "
    "difference of two predictions to rectify, and the steps are not those of a solver"
    for name in ("LCMScheduler", "TCDScheduler", "FlowMatchLCMScheduler", "SCMScheduler")
}

_NO = (False, False)
_BETAS = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "steps_offset": 0,
}
_ZERO = {"rescale_betas_zero_snr": False}
_CLIP = {"clip_sample": True, "clip_sample_range": 1.0}
_LEVELS = dict.fromkeys((f"use_{kind}_sigmas" for kind in SPACED), False)
_FLOWS = {
    "use_flow_sigmas": False,
    "flow_shift": 1.0,
    "use_dynamic_shifting": False,
    "time_shift_type": "exponential",
}
_OUTPUT = frozenset({"prediction_type", "dynamic_thresholding_ratio", "sample_max_value"})
_DPM = {
    "lower_order_final": True,
    "euler_at_final": False,
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
}
_OLD = {**_BETAS, **_ZERO, **_CLIP, "timestep_spacing": "leading"}
_SIGMAS = {**_BETAS, "timestep_spacing": "linspace"}
_MULTISTEP = {**_SIGMAS, **_ZERO, **_LEVELS, **_FLOWS, "final_sigmas_type": "zero"}
_EDM = {"sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0, "sigma_schedule": "karras"}
_UNTOUCHED = frozenset({"prediction_type"})


def _edm(settings: Settings) -> Schedule:
    fields = {name: settings[name] for name in ("sigma_min", "sigma_max", "rho")}
    return EDM(**fields, spacing=settings["sigma_schedule"], prior="unit")


READERS: dict[str, Reader] = {
    "DDPMScheduler": Reader(
        {**_OLD, "variance_type": "fixed_small"},
        {"thresholding": _NO},
        meaning.vp,
        meaning.ddpm,
        _OUTPUT,
    ),
    "DDIMScheduler": Reader(
        {**_OLD, "set_alpha_to_one": True},
        {"thresholding": _NO},
        meaning.one_step,
        meaning.ddim,
        _OUTPUT,
    ),
    "PNDMScheduler": Reader(
        {
            **_BETAS,
            "timestep_spacing": "leading",
            "set_alpha_to_one": False,
            "skip_prk_steps": False,
        },
        {},
        meaning.one_step,
        lambda settings: ("pndm", {"skip_prk": settings["skip_prk_steps"]}),
        _UNTOUCHED,
    ),
    "EulerDiscreteScheduler": Reader(
        {
            **_SIGMAS,
            **_ZERO,
            **_LEVELS,
            "final_sigmas_type": "zero",
            "timestep_type": "discrete",
            "prediction_type": "epsilon",
            "sigma_min": None,
            "sigma_max": None,
        },
        {"interpolation_type": ("linear", "linear")},
        meaning.sigma_space,
        lambda settings: ("euler", {}),
    ),
    "EulerAncestralDiscreteScheduler": Reader(
        {**_SIGMAS, **_ZERO},
        {},
        meaning.sigma_space,
        lambda settings: ("euler_ancestral", {}),
        _UNTOUCHED,
    ),
    "HeunDiscreteScheduler": Reader(
        {
            **_SIGMAS,
            **_LEVELS,
            **_CLIP,
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "clip_sample": False,
        },
        {},
        meaning.sigma_space,
        lambda settings: ("heun", meaning.clip(settings)),
        _UNTOUCHED,
    ),
    "DPMSolverMultistepScheduler": Reader(
        {**_MULTISTEP, **_DPM},
        {
            "thresholding": _NO,
            "solver_order": (2, 2),
            "use_lu_lambdas": _NO,
            "lambda_min_clipped": (-float("inf"), -float("inf")),
            "variance_type": (None, None),
        },
        meaning.multistep,
        meaning.dpm,
        _OUTPUT,
    ),
    "UniPCMultistepScheduler": Reader(
        {
            **_MULTISTEP,
            "shift_terminal": None,
            "solver_order": 2,
            "solver_type": "bh2",
            "lower_order_final": True,
        },
        {
            "thresholding": _NO,
            "predict_x0": (True, True),
            "disable_corrector": ([], []),
            "solver_p": (None, None),
            "sigma_min": (None, None),
            "sigma_max": (None, None),
        },
        meaning.multistep,
        meaning.unipc,
        _OUTPUT,
    ),
    "FlowMatchEulerDiscreteScheduler": Reader(
        {
            **_LEVELS,
            "num_train_timesteps": 1000,
            "shift": 1.0,
            "use_dynamic_shifting": False,
            "time_shift_type": "exponential",
            "shift_terminal": None,
            "base_shift": 0.5,
            "max_shift": 1.15,
            "base_image_seq_len": 256,
            "max_image_seq_len": 4096,
        },
        {"invert_sigmas": _NO, "stochastic_sampling": _NO},
        meaning.flow,
        lambda settings: ("flow_euler", {}),
    ),
    "EDMEulerScheduler": Reader(
        _EDM,
        {"final_sigmas_type": ("zero", "zero")},
        _edm,
        lambda settings: ("euler", {}),
        frozenset({"prediction_type", "sigma_data", "num_train_timesteps"}),
    ),
    "EDMDPMSolverMultistepScheduler": Reader(
        {**_EDM, **_DPM},
        {"final_sigmas_type": ("zero", "zero"), "thresholding": _NO, "solver_order": (2, 2)},
        _edm,
        meaning.dpm,
        _OUTPUT | {"sigma_data", "num_train_timesteps"},
    ),
}
