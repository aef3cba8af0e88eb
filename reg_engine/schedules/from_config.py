"""A diffusers scheduler or its config, read as a schedule and a solver.

Every setting is either reproduced, or must have the one value that this engine reproduces, or has
no effect on times and steps. Settings of other scheduler classes, which diffusers carries along in
a config, are skipped as diffusers skips them; a setting that no known class has is an error.
`prediction_type` and `sigma_data` belong to the Denoiser. Of a scheduler that is handed over itself
its state counts, wherever it left its config (live.py).

Where results differ from diffusers, on purpose:
- A step goes to the next time of the grid; in DDIMScheduler and PNDMScheduler to t - T // steps,
  which is the same for "leading", and for "trailing" where steps divides T.
- PNDMScheduler with prediction_type "v_prediction" averages v of several times, here it is epsilon;
  it rounds Runge-Kutta midpoints where T // steps is odd, here they are exact.
- Times of DPMSolverMultistepScheduler and UniPCMultistepScheduler that are no integers (spaced
  noise levels, flow) are told to the network as they are, not rounded or cut to integers.
- "linspace" with one step starts at T - 1; in DDPM, Euler and Heun at 0, where there is no noise.
  So does EDM's "exponential" with one step at sigma_max, there at sigma_min.
- UniPCMultistepScheduler with "bh1", or without lower_order_final, ends in NaN at sigma = 0; here
  in a step of first order.
- DDPMScheduler with "fixed_large" adds noise in a last step from t > 0; here x_0 is left clean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InputError, choice
from .base import Schedule
from .live import live_config, with_live_times
from .readers import READERS, REFUSED, Reader
from .settings import REMEDIES, TIMES, Settings

__all__ = ["from_diffusers", "solver_from_diffusers"]


def from_diffusers(
    config: Any,
    *,
    mu: float | None = None,
    image_seq_len: int | None = None,
    times: bool = True,
) -> Schedule:
    """The schedule of a diffusers scheduler or its config, with its own grid of times.

    A scheduler whose set_timesteps was given sigmas, timesteps or mu has those times: the schedule
    then has them too (Schedule.times), unless mu or image_seq_len is given here.

    Args:
        config: a scheduler, or the dict of a scheduler_config.json (with its `_class_name`).
        mu: for use_dynamic_shifting: the shift is exp(mu) ("linear" time shift: mu).
        image_seq_len: latent tokens of the image, in the place of mu: it is linear in them, from
            base_shift at base_image_seq_len to max_shift at max_image_seq_len.
        times: False leaves out the times that a scheduler was set to, in its last call for one.

    Raises:
        InputError: an unknown class, a setting or a state that this engine does not reproduce, or
            neither mu nor image_seq_len where they are needed.
    """
    reader, settings = _settings(config)
    settings["mu"] = _mu(settings, mu, image_seq_len)
    if not times or settings["mu"] is not None or isinstance(config, Mapping):
        return reader.schedule(settings)
    return with_live_times(config, lambda mu: reader.schedule(settings | {"mu": mu}))


def solver_from_diffusers(config: Any) -> tuple[str, dict[str, Any]]:
    """(name, options) for `solvers.table` of a scheduler's config; errors as from_diffusers.

    `clip_sample` becomes the option `clip`.
    """
    reader, settings = _settings(config)
    return reader.solver(settings)


def _settings(config: Any) -> tuple[Reader, Settings]:
    """The reader of the config's class, and its settings, diffusers' defaults filled in."""
    state: Settings = {}
    if isinstance(getattr(config, "config", None), Mapping):  # a scheduler: its class counts
        config, state = live_config(config)
    if not isinstance(config, Mapping) or "_class_name" not in config:
        raise InputError(
            "config", "has no '_class_name'", "Give the scheduler, or its scheduler_config.json"
        )
    name = config["_class_name"]
    if name in REFUSED:
        raise InputError(
            "_class_name", f"{name!r} {REFUSED[name]}", "Sample the network it was distilled from"
        )
    reader = READERS[choice("_class_name", name, READERS)]
    known = set().union(*(other.known() for other in READERS.values()))
    for key in config:
        if not key.startswith("_") and key not in known:
            raise InputError(key, f"is not a known setting of {name}", "Remove it if harmless")
    for key, (default, supported) in reader.fixed.items():
        value = config.get(key, default)
        if value != supported:
            raise InputError(
                key, f"is {value!r} in the {name}, which is not known", REMEDIES.get(key, TIMES)
            )
    settings = {key: config.get(key, default) for key, default in reader.read.items()}
    return reader, settings | {"alphas_cumprod": None, "built_shift": None, "mu": None} | state


def _mu(settings: Settings, mu: float | None, image_seq_len: int | None) -> float | None:
    if mu is None and image_seq_len is None:
        return None
    name = "mu" if image_seq_len is None else "image_seq_len"
    if not settings.get("use_dynamic_shifting"):
        raise InputError(name, "is given without use_dynamic_shifting", "Leave it out")
    if image_seq_len is None:
        return mu
    if mu is not None:
        raise InputError("mu", "is given beside image_seq_len", "Give one of them")
    if "base_shift" not in settings:
        raise InputError("image_seq_len", "means nothing to this scheduler", "Give mu")
    least, most = settings["base_image_seq_len"], settings["max_image_seq_len"]
    share = (image_seq_len - least) / (most - least)
    return float(settings["base_shift"] + share * (settings["max_shift"] - settings["base_shift"]))
