"""How far the student is from its teacher: in the estimates, and in the samples."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..engine import Engine
from ..networks.denoisers import Denoiser
from .teacher import Teacher

__all__ = ["Difference", "differences"]


class Difference(NamedTuple):
    """At one scale, of distances between root mean squares, as parts of the guidance's own.

    Attributes:
        scale: of guidance.
        levels: noise levels sigma/alpha of the trajectories' rows.
        estimates: at each, |student - teacher| / |no guidance - teacher| of the estimates of x_0,
            along the teacher's trajectories: 0 = the teacher's, 1 = as far as without guidance.
        samples: the same of samples from the same seeds, each on its own trajectory.
        evaluations: a sample, of the student and of the teacher (backward passes counted).
    """

    scale: float
    levels: list[float]
    estimates: list[float]
    samples: float
    evaluations: tuple[float, float]


@torch.no_grad()
def differences(
    student: Denoiser,
    teacher: Teacher,
    cond: Any,
    seeds: Iterable[int],
    scales: Iterable[float],
    solver: str = "dpmpp_2m",
    steps: int = 12,
) -> list[Difference]:
    """Compare them on seeds that were not trained with.

    Args:
        student: the model with its adapter. teacher: its teacher.
        cond: conditioning of the samples.
        seeds: one a sample, below 2^41: training draws them from there on.
        scales: of guidance, those of the adapter.
        solver, steps: of the trajectories.
    """
    plain, found, each = teacher.denoiser, [], list(seeds)
    chosen: dict[str, Any] = {"solver": solver, "steps": steps, "progress": False}
    for scale in scales:
        leading = teacher.engine(scale, solver, steps)
        own, base = Engine(student, scale=scale, **chosen), Engine(plain, scale=1.0, **chosen)
        told = leading.conditions(cond, len(each), each)[0]
        levels, parts = [], []
        for step in leading.steps(cond, each):
            place = own.denoiser.schedule.noise_level(step.t)
            answers = (engine.denoiser(step.x, step.t, told) for engine in (own, base))
            ours, without = (_rms(answer - step.guided) for answer in answers)
            levels.append(place)
            parts.append(_part(ours, without))
        outs = [engine.sample(cond, each) for engine in (own, leading, base)]
        far = [_rms(out.samples - outs[1].samples) for out in (outs[0], outs[2])]
        costs = (outs[0].stats.nfe, outs[1].stats.nfe + outs[1].stats.backward)
        found.append(Difference(scale, levels, parts, _part(*far), costs))
    return found


def _part(ours: float, without: float) -> float:
    """ours / without; where guidance does nothing, any distance is too far."""
    if without == 0:
        return math.inf if ours else 0.0
    return ours / without


def _rms(x: Tensor) -> float:
    return float(x.double().square().mean().sqrt())
