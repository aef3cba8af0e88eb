"""What the settings of diffusers' schedulers mean: schedules, and solvers with their options.

Each takes the settings of a config, diffusers' defaults filled in. `alphas_cumprod`, `built_shift`
and `mu` are no settings of diffusers: they come from a scheduler's state and from the caller.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import InputError, choice
from .base import SPACED, Schedule
from .continuous import EDM, Flow
from .vp import Betas, Cosine, ScaledLinear, VPLinear

__all__ = [
    "REMEDIES",
    "TIMES",
    "Settings",
    "clip",
    "ddim",
    "ddpm",
    "dpm",
    "flow",
    "multistep",
    "one_step",
    "sigma_space",
    "unipc",
    "vp",
]

Settings = dict[str, Any]

TIMES = "Give its times to the solver: solver_options={'times': [...]}"
_SAME = "samples the same distribution, and its steps are known here"
REMEDIES = {  # of a fixed setting; none of them changes the schedule that a network was trained on
    "thresholding": "Write it as an adjustment, (point, guided, cond) -> guided: Guidance(adjust=)",
    "algorithm_type": f"'dpmsolver++' {_SAME}",
    "solver_type": f"'midpoint' {_SAME}",
    "variance_type": "Take a fixed variance; of DDPMScheduler learned_range is known too",
    "solver_order": "Take 2, or UniPCMultistepScheduler, which is known up to 3",
    "stochastic_sampling": f"Without it the scheduler {_SAME}",
    "predict_x0": f"predict_x0=True {_SAME}",
    "solver_p": f"solver_p=None {_SAME}",
    "disable_corrector": f"disable_corrector=[] {_SAME}",
    "invert_sigmas": "Give Denoiser a network that turns time and prediction round, and Flow()",
}

_KINDS = {"linear": VPLinear, "scaled_linear": ScaledLinear, "squaredcos_cap_v2": Cosine}
_SPACINGS = ("leading", "trailing", "linspace")
TINY = 2.0**-24  # alpha^2 that the sigma-space schedulers put in the place of 0
BELOW_ONE = float(np.float32(1 - 1e-6))  # where UniPC's flow times start, rounded as there


def _spacing(settings: Settings) -> str | None:
    """The one of base.SPACED that is switched on, if any."""
    on = [kind for kind in SPACED if settings.get(f"use_{kind}_sigmas")]
    if len(on) > 1:
        raise InputError(f"use_{on[1]}_sigmas", f"is set beside use_{on[0]}_sigmas", "Keep one")
    return on[0] if on else None


def vp(settings: Settings, terminal: float = 0.0, **fields: Any) -> Schedule:
    """The VP kind of the settings' betas, with its grid."""
    plain = choice("timestep_spacing", settings["timestep_spacing"], _SPACINGS)
    grid: Settings = {"spacing": plain, "steps_offset": settings["steps_offset"]}
    if kind := _spacing(settings):
        grid |= {"spacing": kind, "ends": plain}
    grid |= fields
    if settings.get("alphas_cumprod") is not None:
        return Betas.of_alphas_cumprod(settings["alphas_cumprod"], **grid)
    if settings.get("rescale_betas_zero_snr"):
        grid["terminal"] = terminal
    count, betas = settings["num_train_timesteps"], settings["trained_betas"]
    if betas is not None:
        if len(betas) != count:
            raise InputError(
                "trained_betas", f"has {len(betas)} values", f"Give num_train_timesteps = {count}"
            )
        return Betas(betas, **grid)
    schedule: Any = _KINDS[choice("beta_schedule", settings["beta_schedule"], _KINDS)]
    if schedule is not Cosine:
        grid |= {"beta_start": settings["beta_start"], "beta_end": settings["beta_end"]}
    result: Schedule = schedule(train_steps=count, **grid)
    return result


def sigma_space(settings: Settings) -> Schedule:
    """Euler, ancestral Euler and Heun: unrounded times; the prior depends on the spacing."""
    prior = "unit" if settings["timestep_spacing"] == "leading" else "sigma"
    if settings.get("timestep_type", "discrete") == "discrete" or (
        settings["prediction_type"] != "v_prediction"
    ):
        for name in ("sigma_min", "sigma_max"):
            if settings.get(name) is not None:
                raise InputError(name, f"is {settings[name]} for discrete times", TIMES)
        return vp(settings, TINY, rounded=False, prior=prior, final=_final(settings))
    ends = settings["sigma_min"], settings["sigma_max"]
    if _spacing(settings) != "karras" or None in ends or _final(settings) != "zero":
        raise InputError(
            "timestep_type",
            "'continuous' is known with use_karras_sigmas, sigma_min, sigma_max and a last sigma 0",
            "Take EDM(sigma_min, sigma_max), and give its times: solver_options={'times': [...]}",
        )
    return EDM(*ends, prior=prior)


def multistep(settings: Settings) -> Schedule:
    """DPM-Solver++ and UniPC: spaced for one step more; noise levels span the whole chain."""
    if settings["use_flow_sigmas"]:
        return _multistep_flow(settings)
    if _spacing(settings):
        return vp(settings, TINY, ends="linspace", final=_final(settings))
    return vp(settings, TINY, extra_step=True, final=_final(settings))


def _multistep_flow(settings: Settings) -> Schedule:
    if kind := _spacing(settings):
        raise InputError(f"use_{kind}_sigmas", "is set beside use_flow_sigmas", TIMES)
    if _final(settings) != "zero":
        raise InputError("final_sigmas_type", "is 'sigma_min' beside use_flow_sigmas", TIMES)
    least = 1 / settings["num_train_timesteps"]
    if "shift_terminal" not in settings:  # DPM-Solver++: without mu it keeps flow_shift
        dynamic = settings["use_dynamic_shifting"] and settings["mu"] is not None
        shift = _shift(settings | {"use_dynamic_shifting": dynamic}, "flow_shift")
        return Flow(shift, grid_start=1 - least, prior="standard")
    return Flow(
        _shift(settings, "flow_shift"),
        grid_end=least,
        extra_step=True,
        terminal=settings["shift_terminal"] or None,
        highest=BELOW_ONE,
        prior="standard",
    )


def _final(settings: Settings) -> str:
    kinds = {"zero": "zero", "sigma_min": "first"}
    return kinds[choice("final_sigmas_type", settings.get("final_sigmas_type", "zero"), kinds)]


def one_step(settings: Settings) -> Schedule:
    """DDIM and PNDM: the last time is clean, or the first trained one."""
    return vp(settings, final="zero" if settings["set_alpha_to_one"] else "first")


def _shift(settings: Settings, static: str) -> float:
    if not settings["use_dynamic_shifting"]:
        return float(settings[static])
    if settings["mu"] is None:
        raise InputError(
            "mu",
            "is needed: use_dynamic_shifting makes the times depend on the image's size",
            "Give from_diffusers(config, mu=...), or image_seq_len=, its number of latent tokens",
        )
    kind = choice("time_shift_type", settings["time_shift_type"], ("exponential", "linear"))
    return math.exp(settings["mu"]) if kind == "exponential" else float(settings["mu"])


def flow(settings: Settings) -> Schedule:
    """Flow matching: values of u from 1 to 1 / num_train_timesteps, shifted."""
    shift, least = _shift(settings, "shift"), 1 / settings["num_train_timesteps"]
    if not settings["use_dynamic_shifting"]:
        # diffusers shifts its smallest time once when it is built, and the whole grid once more.
        built = settings["shift"] if settings["built_shift"] is None else settings["built_shift"]
        least = built * least / (1 + (built - 1) * least)
    return Flow(
        shift,
        grid_end=least,
        terminal=settings["shift_terminal"] or None,
        spacing=_spacing(settings) or "linear",
    )


def ddpm(settings: Settings) -> tuple[str, Settings]:
    """The variance by its name, and clipping."""
    kinds = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large"}
    kinds["learned_range"] = "learned"
    if (kind := settings["variance_type"]) not in kinds:
        raise InputError("variance_type", f"is {kind!r}", REMEDIES["variance_type"])
    variance = kinds[kind]
    return "ddpm", {"variance": variance} | clip(settings)


def clip(settings: Settings) -> Settings:
    """The option `clip`, where clip_sample is on."""
    return {"clip": float(settings["clip_sample_range"])} if settings["clip_sample"] else {}


def ddim(settings: Settings) -> tuple[str, Settings]:
    """Clipping leaves epsilon as it was."""
    options = clip(settings)
    return "ddim", options | ({"keep_epsilon": True} if options else {})


def dpm(settings: Settings) -> tuple[str, Settings]:
    """DPM-Solver++ 2M, of the ODE or the SDE."""
    solvers = {"dpmsolver++": "dpmpp_2m", "deis": "dpmpp_2m", "sde-dpmsolver++": "dpmpp_2m_sde"}
    kind = settings["algorithm_type"]
    if kind not in solvers:
        raise InputError("algorithm_type", f"is {kind!r}", REMEDIES["algorithm_type"])
    if settings["solver_type"] not in ("midpoint", "logrho", "bh1", "bh2"):  # as diffusers reads it
        raise InputError("solver_type", "is 'heun'", REMEDIES["solver_type"])
    return solvers[kind], {k: settings[k] for k in ("lower_order_final", "euler_at_final")}


def unipc(settings: Settings) -> tuple[str, Settings]:
    """UniPC; names of another family's solver_type are read as diffusers reads them."""
    variant = settings["solver_type"]
    return "unipc", {
        "order": settings["solver_order"],
        "variant": "bh2" if variant in ("midpoint", "heun", "logrho") else variant,
        "lower_order_final": settings["lower_order_final"],
    }
