"""Checks of what a call is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .errors import InputError
from .guidance.damped import check_model
from .guidance.guidance import Guidance
from .guidance.weights import Constant, SampleWeight, Weight, looks_at_samples
from .networks.adapter import worn
from .networks.conditioning import as_cond, size
from .networks.denoisers import Denoiser
from .ops.formulas import widest
from .plan import Plan
from .rectifiers import Rectifier
from .schedules import Schedule
from .solvers import Table
from .values import as_int, as_tuple, shown, usable

__all__ = [
    "adapted",
    "as_batch_size",
    "as_callback",
    "as_device",
    "as_dtype",
    "as_guidance",
    "as_noise",
    "as_options",
    "as_plan",
    "as_postprocess",
    "as_schedule",
    "as_seeds",
    "as_weight",
    "check_variance",
    "known_names",
    "no_choices",
]

SAME = 1e-3  # by which two alphas of one noise level may differ, times being rounded


def as_seeds(seeds: Iterable[int] | None, cond: Any) -> list[int]:
    """The seeds as a list of ints in [0, 2^63); None = one a row of `cond`."""
    if seeds is None:
        count = size(as_cond(cond, None, None, None, torch.device("cpu")))
        if count == 0:
            raise InputError("cond", "is empty", "Give one row a sample")
        return list(range(count))
    values = as_tuple("seeds", seeds, "Give integers: range(n) or a list")
    if not values:
        raise InputError("seeds", "is empty", "Give one seed a sample, for example range(16)")
    remedy = "Give non-negative integers below 2^63"
    return [as_int("seeds", value, 0, remedy) for value in values]


def as_batch_size(batch_size: int | None) -> int | None:
    """None, or an integer >= 1."""
    return None if batch_size is None else as_int("batch_size", batch_size)


def as_dtype(dtype: torch.dtype | None) -> torch.dtype:
    """The state's dtype: float32 unless float64 is asked for."""
    if dtype is None:
        return torch.float32
    if not isinstance(dtype, torch.dtype) or dtype not in (torch.float32, torch.float64):
        raise InputError(
            "dtype",
            f"is {shown(dtype)}",
            "The state is float32 or float64; cast the network for half precision",
        )
    return dtype


def as_noise(
    noise: Tensor | None, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype
) -> Tensor | None:
    """The user's initial unit noise, checked: shape, floating, device, finite."""
    if noise is None:
        return None
    if not isinstance(noise, Tensor):
        raise InputError("noise", f"is a {type(noise).__name__}", "Give a torch.Tensor")
    if tuple(noise.shape) != shape:
        raise InputError("noise", f"has shape {tuple(noise.shape)}", f"Give shape {shape}")
    if not noise.is_floating_point():
        raise InputError("noise", f"has dtype {noise.dtype}", "Give a floating point tensor")
    if noise.device != device:
        raise InputError(
            "noise", f"is on {noise.device}", f"Move it to {device}, where the network is"
        )
    bad = ~torch.isfinite(noise).flatten(1).all(1)
    if bool(bad.any()):
        raise InputError(
            "noise",
            f"holds NaN or Inf in samples {bad.nonzero().flatten().tolist()[:8]}",
            "Give finite unit noise",
        )
    return noise.to(dtype)


def as_device(
    device: Any, own: torch.device | None, modules: Iterable[nn.Module], dtype: torch.dtype
) -> torch.device:
    """Where to run a state of `dtype`: `device`, to which the modules are moved, or where they are
    already."""
    place = usable((own or torch.device("cpu")) if device is None else device)
    if dtype == torch.float64 and widest(place) != dtype:
        raise InputError("dtype", f"is float64, which {place.type} has not", "Give torch.float32")
    if device is None:
        return place
    for module in modules:
        module.to(place)
    return place


def adapted(
    network: Denoiser,
    scale: Any,
    guidance: Guidance | None,
    rectify: str | Rectifier | None,
    plan: Plan | None,
) -> tuple[Denoiser, float, None]:
    """A network whose adapter holds the guidance: itself with the weights of `scale` (None = 2),
    and the scale and the estimator that are left, 1 and none.

    Raises:
        InputError: guidance, an estimator or a plan beside it; a scale that is no number of its
            own.
    """
    assert network.adapter is not None
    no_choices(guidance, rectify, plan)
    return worn(network, network.adapter, 2.0 if scale is None else scale), 1.0, None


def no_choices(
    guidance: Guidance | None, rectify: str | Rectifier | None, plan: Plan | None
) -> None:
    """InputError where something is chosen that an adapter holds already."""
    remedy = "Leave it out, or sample from the model without its adapter"
    if guidance is not None:
        raise InputError("guidance", "is given, and the adapter holds guidance", remedy)
    if rectify not in (None, "auto"):
        raise InputError("rectify", "is given, and the adapter was trained with its own", remedy)
    if plan not in (None, Plan.full()):
        raise InputError("plan", "is given, and an adapter takes one evaluation everywhere", remedy)


def as_guidance(
    scale: float | Weight | SampleWeight | None,
    guidance: Guidance | None,
    rectify: str | Rectifier | None,
    denoiser: Denoiser,
) -> Guidance:
    """The guidance that `scale` (None = 2) and `rectify` stand for, or `guidance`, as one term.

    Raises:
        InputError: `scale` or `rectify` beside `guidance`, or a bad one.
    """
    if guidance is None:
        guidance = Guidance(2.0 if scale is None else as_weight(scale), rectify=rectify)
    elif not isinstance(guidance, Guidance):
        raise InputError(
            "guidance", f"is a {type(guidance).__name__}", "Give a reg_engine.Guidance"
        )
    elif scale is not None:
        raise InputError("scale", "is given beside guidance", "Put it into Guidance(weight=scale)")
    elif rectify != "auto":
        raise InputError("rectify", "is given beside guidance", "Put it into Guidance(rectify=...)")
    check_model((guidance.weight, *(term.weight for term in guidance.terms)), denoiser)
    return guidance.as_one()


def as_weight(scale: Any) -> Any:
    """A number as the same scale everywhere; a weight as it is.

    Raises:
        InputError: neither; a class or a Damping in place of a value.
    """
    if isinstance(scale, type) or not (callable(scale) or looks_at_samples(scale)):
        return Constant(scale)
    return scale


def as_options(solver_options: Any) -> dict[str, Any]:
    """The solver's options by name; None = none."""
    if solver_options is None:
        return {}
    if not isinstance(solver_options, Mapping) or not all(
        isinstance(k, str) for k in solver_options
    ):
        raise InputError("solver_options", f"is {shown(solver_options)}", "Give a dict of names")
    if both := {"solver", "schedule", "steps", "refine"} & set(solver_options):
        raise InputError(min(both), "is no solver option", "Give it beside solver_options")
    return dict(solver_options)


def as_plan(plan: Plan | None) -> Plan:
    """The plan; None = Plan.full()."""
    if plan is not None and not isinstance(plan, Plan):
        raise InputError("plan", f"is a {type(plan).__name__}", "Give a reg_engine.Plan")
    return plan or Plan.full()


def as_schedule(schedule: Any, model: Denoiser) -> Schedule:
    """The schedule to sample in; None = the model's own."""
    if schedule is None:
        return model.schedule
    if not isinstance(schedule, Schedule):
        raise InputError("schedule", f"is {shown(schedule)}", "Give one of reg_engine.schedules")
    return schedule


def check_variance(rows: Table, model: Denoiser, view: Denoiser) -> None:
    """InputError where the rows follow a learned variance and the network returns none, or one of
    another schedule: what it learned lies between deviations on its own.

    Args:
        view: the model on the rows' schedule.
    """
    if not rows.learned:
        return
    if not model.learned_variance:
        raise InputError(
            "variance",
            "is 'learned', and the network returns none",
            "Take 'small' or 'large', or a Denoiser(learned_variance=True)",
        )
    for row in rows.rows if view.schedule != model.schedule else ():
        view.at(row.t)  # or the model has no such level
        alpha, _ = model.schedule(model.schedule.time_of(row.sigma / row.alpha))
        if row.spread and abs(alpha / row.alpha - 1) > SAME:
            problem = (
                f"is 'learned', and alpha at t = {row.t:g} is not that of the model's schedule"
            )
            raise InputError("variance", problem, "Leave schedule out, or take 'small' or 'large'")


def known_names(names: Iterable[str], function: Callable[..., Any], called: str) -> None:
    """InputError for the first of `names` that is no keyword argument of `function`."""
    known = set(function.__kwdefaults__ or {})
    for name in names:
        if name not in known:
            raise InputError(
                name, f"is not an argument of {called}", f"Known: {', '.join(sorted(known))}"
            )


Postprocessing = Callable[[Tensor, Any], Tensor]


def as_postprocess(postprocess: Any) -> Postprocessing | None:
    """None, or something callable."""
    if postprocess is None or (callable(postprocess) and not isinstance(postprocess, type)):
        return postprocess
    raise InputError(
        "postprocess",
        f"a {type(postprocess).__name__} is not callable",
        "Give a function of (samples, cond), such as a reg_engine.postprocess.Postprocess",
    )


def as_callback(callback: Any, captures: bool) -> Callable[[Any], object] | None:
    """None, or something callable; not where every batch `captures` its rows."""
    if callback is None:
        return None
    if not callable(callback) or isinstance(callback, type):
        raise InputError("callback", f"is {shown(callback)}", "Give a function of a Step")
    if captures:
        raise InputError("callback", "sees no row of a captured batch", "Use capture='auto'")
    return callback
