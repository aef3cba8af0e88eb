"""Where a pipeline stands: the marginal x_t = alpha x_0 + sigma noise of its scheduler's step.

A network of diffusers sees the chain's own x_t whatever the scheduler (one that keeps x_0 + sigma
noise divides before it asks), so the chain and the noise level of a step are all that is needed:
no solver has to be known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError
from ...schedules import Betas, Flow, Schedule

__all__ = ["Levels", "levels_of"]

PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v_prediction", "sample": "sample"}
CLOSE = 1e-3  # of a step of the chain: float32 times, divided by their number


@dataclass(frozen=True)
class Levels:
    """A scheduler, read as prediction, schedule, and times.

    Args:
        prediction, schedule: as a Denoiser takes them.
        scheduler: whose grid the steps are.
    """

    prediction: str
    schedule: Schedule
    scheduler: Any

    def time(self, told: float) -> float:
        """The schedule's time of the step at which the network is told `told`: a time of the
        scheduler, or that over the number of its steps.

        Raises:
            InputError: no step of the scheduler is told so.
        """
        times = [float(t) for t in self.scheduler.timesteps]
        steps = float(self.scheduler.config.num_train_timesteps)
        near = [
            min((abs(factor * told - t), i) for i, t in enumerate(times)) for factor in (1, steps)
        ]
        distance, index = min(near)
        if distance > CLOSE * max(1.0, abs(times[index])):
            raise InputError(
                "pipe",
                f"tells its network the time {told:g}, which is none of its scheduler's",
                "Sample with reg_engine.sample and a Denoiser of the network",
            )
        flow, sigmas = isinstance(self.schedule, Flow), getattr(self.scheduler, "sigmas", None)
        if self.scheduler.timesteps.is_floating_point() or sigmas is None:
            return times[index] / steps if flow else times[index]
        level = float(sigmas[index])  # whole times are rounded, or cut
        largest = self.schedule.noise_level(self.schedule.prior_time)
        return level if flow else self.schedule.time_of(min(level, largest))


def levels_of(scheduler: Any) -> Levels:
    """How the network of a pipeline with this scheduler is to be read.

    Raises:
        InputError: neither a flow nor a chain of known alphas.
    """
    config = scheduler.config
    prediction = config.get("prediction_type")
    flows = config.get("use_flow_sigmas") or prediction == "flow_prediction"
    if flows or type(scheduler).__name__.startswith("FlowMatch"):
        return Levels("flow", Flow(), scheduler)
    products = getattr(scheduler, "alphas_cumprod", None)
    if not isinstance(products, Tensor) or prediction not in PREDICTIONS:
        raise InputError(
            "scheduler",
            f"a {type(scheduler).__name__} that predicts {prediction!r} has no known alpha, sigma",
            "Take one of a VP chain (DDIM, Euler, DPM++, ...) or of a flow (FlowMatchEuler, ...)",
        )
    chain: Any = products.to("cpu", torch.float64).numpy()
    return Levels(PREDICTIONS[prediction], Betas.of_alphas_cumprod(np.asarray(chain)), scheduler)
