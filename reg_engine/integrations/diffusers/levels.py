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

PREDICTIONS = ("epsilon", "v_prediction", "sample")
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

    def time(self, told: float, rounding: float = 0.0) -> float:
        """The schedule's time of the step at which the network is told `told`: a time of the
        scheduler, or that over the number of its steps, rounded by up to that part of it. The step
        is the one at which the scheduler stands, where that fits: times may repeat.

        Raises:
            InputError: no step of the scheduler is told so.
        """
        times = [float(t) for t in self.scheduler.timesteps]
        steps = float(self.scheduler.config.num_train_timesteps)
        away = [min(abs(told - t), abs(steps * told - t)) for t in times]
        close = [max(CLOSE, rounding) * max(1.0, abs(t)) for t in times]
        index = self._stands()
        if index is None or index >= len(times) or away[index] > close[index]:
            index = away.index(min(away))
        if away[index] > close[index]:
            raise InputError(
                "pipe",
                f"tells its network the time {told:g}, which is none of its scheduler's",
                "Sample with reg_engine.sample and a Denoiser of the network",
            )
        flow, sigmas = isinstance(self.schedule, Flow), getattr(self.scheduler, "sigmas", None)
        if sigmas is None or (self.scheduler.timesteps.is_floating_point() and not flow):
            return times[index] / steps if flow else times[index]
        # Whole times are rounded, or cut; those of a flow may be others than its levels (CogView4).
        level = float(sigmas[index])
        largest = self.schedule.noise_level(self.schedule.prior_time)
        return level if flow else self.schedule.time_of(min(level, largest))

    def _stands(self) -> int | None:
        """The scheduler's step, or where it begins; None: it has none, or does not say."""
        step: int | None = getattr(self.scheduler, "step_index", None)
        return getattr(self.scheduler, "begin_index", None) if step is None else step


def levels_of(scheduler: Any) -> Levels:
    """How the network of a pipeline with this scheduler is to be read.

    Raises:
        InputError: neither a flow nor a chain of known alphas.
    """
    config = scheduler.config
    prediction = config.get("prediction_type")
    # Times of their own, 0.25 log sigma, over a range of their own; and flows from data to noise.
    other = config.get("timestep_type") == "continuous" or config.get("invert_sigmas")
    flows = config.get("use_flow_sigmas") or prediction == "flow_prediction"
    if not other and (flows or type(scheduler).__name__.startswith("FlowMatch")):
        return Levels("flow", Flow(), scheduler)
    products = getattr(scheduler, "alphas_cumprod", None)
    if other or not isinstance(products, Tensor) or prediction not in PREDICTIONS:
        raise InputError(
            "scheduler",
            f"a {type(scheduler).__name__} that predicts {prediction!r} has no known alpha, sigma",
            "Take one of a VP chain (DDIM, Euler, DPM++, ...) or of a flow (FlowMatchEuler, ...)",
        )
    chain: Any = products.to("cpu", torch.float64).numpy()
    return Levels(prediction, Betas.of_alphas_cumprod(np.asarray(chain)), scheduler)
