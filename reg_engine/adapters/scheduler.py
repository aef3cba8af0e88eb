"""What the scheduler beside a network says of it: what it predicts, and the schedule it knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from ..errors import InputError
from ..schedules import EDM, Flow, Schedule, from_diffusers
from .families import WRAP
from .family import Family

__all__ = ["Parametrisation", "parametrisation"]

VP = ("epsilon", "sample", "v_prediction")
FLOW = (None, "flow_prediction")
REMEDY = (
    "Give denoiser_of(model, scheduler=...): the scheduler beside the network, or the dict of its "
    "scheduler_config.json"
)


class Parametrisation(NamedTuple):
    """As `Denoiser` takes them; `unit`: diffusers' timestep at t = 1."""

    prediction: str
    schedule: Schedule
    sigma_data: float
    unit: float


def parametrisation(
    scheduler: Any, name: str, family: Family, shape: tuple[int, ...]
) -> Parametrisation:
    """What the scheduler says of the network `name`, for samples of a shape.

    Raises:
        InputError: no scheduler, one that is not known, or one of another kind of network.
    """
    if scheduler is None:
        raise InputError("scheduler", f"is None: a {name} does not say its noise schedule", REMEDY)
    config = scheduler if isinstance(scheduler, Mapping) else getattr(scheduler, "config", None)
    if not isinstance(config, Mapping):
        raise InputError("scheduler", f"is a {type(scheduler).__name__}", REMEDY)
    dynamic = config.get("use_dynamic_shifting", False)
    tokens = family.tokens(shape) if dynamic else None
    schedule = from_diffusers(scheduler, image_seq_len=tokens, times=False)
    kind = config.get("_class_name", type(scheduler).__name__)
    prediction = config.get("prediction_type")
    if family.flow and not isinstance(schedule, Flow):
        problem = f"a {kind} is that of a noised chain, and the {name} is a flow"
        raise InputError("scheduler", problem, "Give a FlowMatchEulerDiscreteScheduler's, for one")
    if isinstance(schedule, Flow):
        if prediction not in FLOW:
            raise _unknown(kind, prediction, "flow_prediction")
        if family.from_one and kind == "FlowMatchEulerDiscreteScheduler":
            schedule = replace(schedule, grid_end=0.0)
        count = float(config.get("num_train_timesteps", 1000))
        return Parametrisation("flow", schedule, 0.5, count)
    prediction = "epsilon" if prediction is None else prediction
    if isinstance(schedule, EDM):
        if not kind.startswith("EDM") or prediction != "epsilon":
            raise _unknown(kind, prediction, "epsilon")
        return Parametrisation("edm", schedule, config.get("sigma_data", 0.5), 1.0)
    if prediction not in VP:
        raise _unknown(kind, prediction, ", ".join(VP))
    return Parametrisation(prediction, schedule, 0.5, 1.0)


def _unknown(kind: str, prediction: Any, known: str) -> InputError:
    problem = f"a {kind} with prediction_type={prediction!r} is not known (known: {known})"
    return InputError("scheduler", problem, WRAP)
