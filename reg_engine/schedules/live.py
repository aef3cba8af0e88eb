"""A scheduler of diffusers as it stands: where its state has left its config."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import InputError
from .base import Array, Schedule
from .continuous import Flow
from .settings import TIMES, Settings

__all__ = ["live_config", "with_live_times"]

NOT_SETTINGS = ("timesteps", "sigmas", "betas")  # arrays: compared as times, or not read


def live_config(scheduler: Any) -> tuple[Mapping[str, Any], Settings]:
    """The config with the scheduler's class, and what of the state replaces settings.

    Replaced are alphas_cumprod, final_alpha_cumprod and shift. diffusers reads every other setting
    from the config, or keeps a copy: they must agree.

    Raises:
        InputError: an attribute that is not what the config says, and that cannot be reproduced.
    """
    # diffusers reads config.name, which an assignment changes and config["name"] does not tell.
    config = {key: getattr(scheduler.config, key, value) for key, value in scheduler.config.items()}
    config["_class_name"] = type(scheduler).__name__
    state: Settings = {}
    for key, value in vars(scheduler).items():
        if key in config and key not in NOT_SETTINGS and not _same(value, config[key]):
            raise _disagree(key, value, config[key])
    if _number(getattr(scheduler, "shift", None)):
        state |= {"shift": float(scheduler.shift), "built_shift": float(config["shift"])}
        _check_built(scheduler, config)
    products = getattr(scheduler, "alphas_cumprod", None)
    if products is not None and not _same(products, _built_anew(scheduler).alphas_cumprod):
        state["alphas_cumprod"] = _array(products)
    last = getattr(scheduler, "final_alpha_cumprod", None)
    if last is not None and products is not None:
        if float(last) not in (1.0, float(products[0])):
            raise _disagree("final_alpha_cumprod", float(last), "1 or alphas_cumprod[0]")
        state["set_alpha_to_one"] = float(last) == 1.0
    if _number(start := vars(scheduler).get("init_noise_sigma")) and start != 1:
        raise _disagree("init_noise_sigma", start, 1.0)
    return config, state


def with_live_times(scheduler: Any, schedule_of: Callable[[float | None], Schedule]) -> Schedule:
    """The schedule of a scheduler (of a mu, if it needs one), with the times it was set to.

    Times that set_timesteps(n) alone would give are left to the schedule's own grid.

    Raises:
        InputError: times that are not the config's, of a scheduler that takes none in diffusers.
    """
    steps = getattr(scheduler, "num_inference_steps", None)
    if getattr(scheduler, "custom_timesteps", False):  # DDPM leaves the number unset
        steps = len(scheduler.timesteps)
    if steps is None:
        return schedule_of(None)
    again = copy.deepcopy(scheduler)
    try:
        again.set_timesteps(steps)
    except ValueError:  # mu is needed: the times are all that tells of it
        return replace(schedule_of(0.0), times=_times(scheduler, schedule_of(0.0)))
    schedule = schedule_of(None)
    # Heun is set to all its steps when it is built.
    if _same_times(scheduler, again) or _same_times(scheduler, _built_anew(scheduler)):
        return schedule
    return replace(schedule, times=_times(scheduler, schedule))


def _times(scheduler: Any, schedule: Schedule) -> tuple[float, ...]:
    told = _array(scheduler.timesteps)
    if not hasattr(scheduler, "sigmas"):
        if not getattr(scheduler, "custom_timesteps", False):
            raise InputError("timesteps", "are not those of set_timesteps", TIMES)
        return (*told.tolist(), schedule.clean_time)
    sigmas = _array(scheduler.sigmas)
    heun = len(sigmas) == 2 * (len(told) // 2 + 1) and len(told) > 1
    if heun and np.array_equal(sigmas[1:-1:2], sigmas[2:-1:2]):  # it repeats the inner ones
        sigmas = np.concatenate([sigmas[:1], sigmas[1:-1:2], sigmas[-1:]])
    if not isinstance(schedule, Flow):
        return tuple(schedule.time_of(sigmas).tolist())
    if not np.allclose(told, 1000 * sigmas[:-1], rtol=1e-4, atol=1.0):
        raise InputError("timesteps", "are not those of the scheduler's sigmas", TIMES)
    return tuple(sigmas.tolist())


def _check_built(scheduler: Any, config: Mapping[str, Any]) -> None:
    """FlowMatchEulerDiscreteScheduler spaces its times between sigma_max and sigma_min."""
    shift = 1.0 if config["use_dynamic_shifting"] else config["shift"]
    least = 1 / config["num_train_timesteps"]
    for name, u in (("sigma_min", least), ("sigma_max", 1.0)):
        built = shift * u / (1 + (shift - 1) * u)
        if not math.isclose(getattr(scheduler, name), built, rel_tol=1e-6):
            raise _disagree(name, getattr(scheduler, name), built)


def _built_anew(scheduler: Any) -> Any:
    return type(scheduler).from_config(scheduler.config)


def _same_times(x: Any, y: Any) -> bool:
    return all(
        _same(getattr(x, name, None), getattr(y, name, None)) for name in ("timesteps", "sigmas")
    )


def _disagree(name: str, value: Any, config: Any) -> InputError:
    return InputError(
        name,
        f"is {value!r} on the scheduler and {config!r} by its config",
        "Build it with that setting: type(scheduler).from_config(scheduler.config, setting=value)",
    )


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _array(value: Any) -> Array:
    return np.asarray(value.cpu() if hasattr(value, "cpu") else value, dtype=np.float64)


def _same(x: Any, y: Any) -> bool:
    if x is None or y is None or isinstance(x, str) or isinstance(y, str):
        return bool(x == y) if not hasattr(x, "shape") and not hasattr(y, "shape") else False
    try:
        return bool(np.array_equal(_array(x), _array(y)))
    except (TypeError, ValueError):
        return bool(x == y)
