"""A diffusers scheduler's config, read as a schedule and a solver.

Every setting is either reproduced, or must have the one value that this engine reproduces, or has
no effect on times and steps. Settings of other scheduler classes, which diffusers carries along in
a config, are skipped as diffusers skips them; a setting that no known class has is an error.
`prediction_type` and `sigma_data` belong to the Denoiser.

Where results differ from diffusers, on purpose:
- A step goes to the next time of the grid; in DDIMScheduler and PNDMScheduler to t - T // steps,
  which is the same for "leading", and for "trailing" where steps divides T.
- PNDMScheduler with prediction_type "v_prediction" averages v of several times, here it is epsilon;
  it rounds Runge-Kutta midpoints where T // steps is odd, here they are exact.
- Times of DPMSolverMultistepScheduler with use_karras_sigmas are not rounded to integers.
- DDPMScheduler with "fixed_large" adds noise in a last step from t > 0; here x_0 is left clean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError, choice
from .base import Schedule
from .continuous import EDM, Flow
from .vp import Cosine, ScaledLinear, VPLinear

__all__ = ["from_diffusers", "solver_from_diffusers"]

Settings = dict[str, Any]


@dataclass(frozen=True)
class Reader:
    """How one scheduler class is read.

    Args:
        read: settings that are used -> diffusers' default.
        fixed: settings with one supported value -> (diffusers' default, that value).
        unused: settings without effect on times and steps.
        schedule, solver: what the settings mean.
    """

    read: Mapping[str, Any]
    fixed: Mapping[str, tuple[Any, Any]]
    schedule: Callable[[Settings], Schedule]
    solver: Callable[[Settings], tuple[str, Settings]]
    unused: frozenset[str] = field(default_factory=frozenset)

    def known(self) -> set[str]:
        return {*self.read, *self.fixed, *self.unused}


def from_diffusers(config: Any) -> Schedule:
    """The schedule of a diffusers scheduler's config, with its own grid of times.

    Args:
        config: a scheduler, or the dict of a scheduler_config.json (with its `_class_name`).

    Raises:
        InputError: an unknown class, or a setting that this engine does not reproduce.
    """
    reader, settings = _settings(config)
    return reader.schedule(settings)


def solver_from_diffusers(config: Any) -> tuple[str, dict[str, Any]]:
    """(name, options) for `solvers.table` of a scheduler's config; errors as from_diffusers."""
    reader, settings = _settings(config)
    return reader.solver(settings)


def _settings(config: Any) -> tuple[Reader, Settings]:
    """The reader of the config's class, and its settings, diffusers' defaults filled in."""
    if isinstance(getattr(config, "config", None), Mapping):  # a scheduler: its class counts
        config = {**config.config, "_class_name": type(config).__name__}
    if not isinstance(config, Mapping) or "_class_name" not in config:
        raise InputError(
            "config", "has no '_class_name'", "Give the scheduler, or its scheduler_config.json"
        )
    name = choice("_class_name", config["_class_name"], READERS)
    reader = READERS[name]
    known = set().union(*(other.known() for other in READERS.values()))
    for key in config:
        if not key.startswith("_") and key not in known:
            raise InputError(key, f"is not a known setting of {name}", "Remove it if harmless")
    for key, (default, wanted) in reader.fixed.items():
        value = config.get(key, default)
        if value != wanted:
            raise InputError(
                key,
                f"is {value!r} in the {name}, which is not supported",
                f"Set it to {wanted!r} in the config, or build a schedule of reg_engine.schedules",
            )
    return reader, {key: config.get(key, default) for key, default in reader.read.items()}


_NO = (False, False)
_BETAS = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "steps_offset": 0,
}
_KINDS = {"linear": VPLinear, "scaled_linear": ScaledLinear, "squaredcos_cap_v2": Cosine}
_VP_FIXED = {"trained_betas": (None, None), "rescale_betas_zero_snr": _NO}
_CLIPS = {"clip_sample": (True, False), "thresholding": _NO}
_SIGMAS = {"use_exponential_sigmas": _NO, "use_beta_sigmas": _NO}
_ENDS = {"sigma_min": (None, None), "sigma_max": (None, None)}
_OUTPUT = frozenset(
    {"prediction_type", "clip_sample_range", "dynamic_thresholding_ratio", "sample_max_value"}
)


def _vp(settings: Settings, **fields: Any) -> Schedule:
    """The VP kind of the settings' betas, with its grid."""
    kind = _KINDS[choice("beta_schedule", settings["beta_schedule"], _KINDS)]
    if kind is not Cosine:
        fields |= {"beta_start": settings["beta_start"], "beta_end": settings["beta_end"]}
    spacing = choice(
        "timestep_spacing", settings["timestep_spacing"], ("leading", "trailing", "linspace")
    )
    if settings.get("use_karras_sigmas"):
        fields = {"spacing": "karras", "ends": spacing} | fields
    return kind(
        train_steps=settings["num_train_timesteps"],
        **{"spacing": spacing, "steps_offset": settings["steps_offset"]} | fields,
    )


def _sigma_space(settings: Settings) -> Schedule:
    """Euler, ancestral Euler and Heun: unrounded times; the prior depends on the spacing."""
    prior = "unit" if settings["timestep_spacing"] == "leading" else "sigma"
    return _vp(settings, rounded=False, prior=prior, final=_final(settings))


def _multistep(settings: Settings) -> Schedule:
    """DPM-Solver++: spaced for one step more; its Karras levels span the whole chain."""
    if settings["use_karras_sigmas"]:
        return _vp(settings, ends="linspace", final=_final(settings))
    return _vp(settings, extra_step=True, final=_final(settings))


def _final(settings: Settings) -> str:
    kinds = {"zero": "zero", "sigma_min": "first"}
    return kinds[choice("final_sigmas_type", settings.get("final_sigmas_type", "zero"), kinds)]


def _one_to(settings: Settings) -> str:
    return "zero" if settings["set_alpha_to_one"] else "first"


def _flow(settings: Settings) -> Schedule:
    # diffusers shifts its smallest time once here, and the whole grid once more.
    shift, least = settings["shift"], 1 / settings["num_train_timesteps"]
    return Flow(shift, grid_end=shift * least / (1 + (shift - 1) * least))


def _variance(settings: Settings) -> tuple[str, Settings]:
    kinds = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large"}
    return "ddpm", {"variance": kinds[choice("variance_type", settings["variance_type"], kinds)]}


READERS: dict[str, Reader] = {
    "DDPMScheduler": Reader(
        {**_BETAS, "timestep_spacing": "leading", "variance_type": "fixed_small"},
        {**_VP_FIXED, **_CLIPS},
        _vp,
        _variance,
        _OUTPUT,
    ),
    "DDIMScheduler": Reader(
        {**_BETAS, "timestep_spacing": "leading", "set_alpha_to_one": True},
        {**_VP_FIXED, **_CLIPS},
        lambda settings: _vp(settings, final=_one_to(settings)),
        lambda settings: ("ddim", {}),
        _OUTPUT,
    ),
    "PNDMScheduler": Reader(
        {
            **_BETAS,
            "timestep_spacing": "leading",
            "set_alpha_to_one": False,
            "skip_prk_steps": False,
        },
        {"trained_betas": (None, None)},
        lambda settings: _vp(settings, final=_one_to(settings)),
        lambda settings: ("pndm", {"skip_prk": settings["skip_prk_steps"]}),
        frozenset({"prediction_type"}),
    ),
    "EulerDiscreteScheduler": Reader(
        {
            **_BETAS,
            "timestep_spacing": "linspace",
            "final_sigmas_type": "zero",
            "use_karras_sigmas": False,
        },
        {
            **_VP_FIXED,
            **_SIGMAS,
            **_ENDS,
            "interpolation_type": ("linear", "linear"),
            "timestep_type": ("discrete", "discrete"),
        },
        _sigma_space,
        lambda settings: ("euler", {}),
        frozenset({"prediction_type"}),
    ),
    "EulerAncestralDiscreteScheduler": Reader(
        {**_BETAS, "timestep_spacing": "linspace"},
        dict(_VP_FIXED),
        _sigma_space,
        lambda settings: ("euler_ancestral", {}),
        frozenset({"prediction_type"}),
    ),
    "HeunDiscreteScheduler": Reader(
        {
            **_BETAS,
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "timestep_spacing": "linspace",
            "use_karras_sigmas": False,
        },
        {"trained_betas": (None, None), **_SIGMAS, "clip_sample": _NO},
        _sigma_space,
        lambda settings: ("heun", {}),
        frozenset({"prediction_type", "clip_sample_range"}),
    ),
    "DPMSolverMultistepScheduler": Reader(
        {
            **_BETAS,
            "timestep_spacing": "linspace",
            "final_sigmas_type": "zero",
            "use_karras_sigmas": False,
            "lower_order_final": True,
            "euler_at_final": False,
        },
        {
            **_VP_FIXED,
            **_SIGMAS,
            "thresholding": _NO,
            "solver_order": (2, 2),
            "algorithm_type": ("dpmsolver++", "dpmsolver++"),
            "solver_type": ("midpoint", "midpoint"),
            "use_lu_lambdas": _NO,
            "use_flow_sigmas": _NO,
            "lambda_min_clipped": (-float("inf"), -float("inf")),
            "variance_type": (None, None),
            "use_dynamic_shifting": _NO,
        },
        _multistep,
        lambda s: ("dpmpp_2m", {k: s[k] for k in ("lower_order_final", "euler_at_final")}),
        _OUTPUT | {"flow_shift", "time_shift_type"},
    ),
    "FlowMatchEulerDiscreteScheduler": Reader(
        {"num_train_timesteps": 1000, "shift": 1.0},
        {
            "use_dynamic_shifting": _NO,
            "invert_sigmas": _NO,
            "shift_terminal": (None, None),
            "use_karras_sigmas": _NO,
            **_SIGMAS,
            "stochastic_sampling": _NO,
        },
        _flow,
        lambda settings: ("flow_euler", {}),
        frozenset(
            {
                "base_shift",
                "max_shift",
                "base_image_seq_len",
                "max_image_seq_len",
                "time_shift_type",
            }
        ),
    ),
    "EDMEulerScheduler": Reader(
        {"sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0},
        {"sigma_schedule": ("karras", "karras"), "final_sigmas_type": ("zero", "zero")},
        lambda settings: EDM(**settings, prior="unit"),
        lambda settings: ("euler", {}),
        frozenset({"prediction_type", "sigma_data", "num_train_timesteps"}),
    ),
}
