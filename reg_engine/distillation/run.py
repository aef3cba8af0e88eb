"""The distillation: rounds of pairs, a trainer that learns them, and the adapter that is left."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..networks.adapter import Adapter, belonging, worn
from ..networks.denoisers import Denoiser
from ..networks.lowrank import LowRank
from ..storage.files import discard
from ..training.trainer import Trainer
from ..version import __version__
from .pairs import Conditions, Round, made
from .settings import Distillation
from .task import DistillationTask
from .teacher import Law, Teacher

__all__ = ["ADAPTER", "Distilled", "distill"]

ADAPTER, ROUND = "adapter.safetensors", "round.pt"


@dataclass(frozen=True)
class Distilled:
    """What a run has come to.

    Attributes:
        adapter: None while it is unfinished. path: where it lies.
        step, steps: done, and of all. seconds: of training.
        numbers: of the adapter, and share of the model's.
        stopped: by what, if it is unfinished.
    """

    adapter: Adapter | None
    path: Path | None
    step: int
    steps: int
    seconds: float
    numbers: int
    share: float
    stopped: str | None


def distill(
    model: Any,
    conditions: Conditions | None = None,
    *,
    out: Path | str,
    guidance: str | Law | Teacher = "vjp",
    settings: Distillation | None = None,
    show: bool = True,
    deadline: float | None = None,
) -> Distilled:
    """Teach a model its own guidance, so that it needs one evaluation a step (Adapter Guidance
    Distillation, Perez Jensen and Sadat 2025; here with any guidance as teacher).

    Trajectories are made under the teacher, later on every second one by the student itself, at
    random seeds, conditions and scales; the student learns the teacher's guided estimates of x_0.
    The model's own weights stay. A run that is stopped, or killed, goes on with the same call, and
    ends with the same adapter.

    Args:
        model: a Denoiser of a torch network, or what `denoiser_of` makes one of.
        conditions: (count, generator) -> conditioning of count rows; None = labels, all alike.
        out: folder of the run; `adapter.safetensors` in it is the result.
        guidance: the teacher: an estimator's name, a function of the scale (see Teacher), or one.
        settings: None = Distillation().
        show: progress on standard error.
        deadline: of time.monotonic(): stop in time, with all saved.

    Raises:
        InputError: a bad argument; a folder of another run. NumericalError: the loss is NaN.
    """
    settings = settings or Distillation()
    teacher = guidance if isinstance(guidance, Teacher) else Teacher(model, guidance)
    denoiser, folder = teacher.denoiser, Path(out)
    drawn = _labels(denoiser) if conditions is None else conditions
    task = DistillationTask(denoiser, settings, teacher.key(settings.scales))
    device = denoiser.device or torch.device("cpu")
    trainer = Trainer(task, settings.config(), folder, device=device, show=show)
    while trainer.step < settings.steps and trainer.stopped is None:
        number = trainer.step // settings.round_steps
        task.round = _round(folder / ROUND, number, trainer, teacher, drawn, settings)
        finished = trainer.run(min(settings.steps, (number + 1) * settings.round_steps), deadline)
        over = deadline is not None and time.monotonic() >= deadline
        if over and not finished:  # the round ended before the trainer could say so
            trainer.stopped = trainer.stopped or "piece"
    change = _averaged(trainer, settings)
    numbers = sum(p.numel() for p in change.parameters())
    whole = sum(p.numel() for module in denoiser.modules for p in module.parameters())
    figures = (trainer.step, settings.steps, trainer.seconds, numbers, numbers / whole)
    if trainer.step < settings.steps:
        return Distilled(None, None, *figures, trainer.stopped)
    about = {"teacher": teacher.name, "settings": settings.as_dict(), "version": __version__}
    adapter = Adapter(change, settings.scales, belonging(denoiser), about)
    adapter.save(folder / ADAPTER)
    discard(folder / ROUND)
    return Distilled(Adapter.load(folder / ADAPTER), folder / ADAPTER, *figures, None)


def _round(
    path: Path,
    number: int,
    trainer: Trainer,
    teacher: Teacher,
    conditions: Conditions,
    settings: Distillation,
) -> Round:
    """The pairs of a round: kept ones, if the run was stopped within it."""
    kept = Round.load(path)
    if kept is not None and kept.number == number:
        return kept
    if trainer.step % settings.round_steps:
        problem = f"{path}, the pairs of step {trainer.step}, is missing"
        raise InputError("out", problem, "Delete the folder to begin anew")
    change = _averaged(trainer, settings)

    def student(scale: float) -> Denoiser:
        found: Denoiser = worn(teacher.denoiser, Adapter(change, settings.scales, {}), scale)
        return found

    found = made(number, teacher, conditions, settings, student)
    found.save(path)
    return found


def _averaged(trainer: Trainer, settings: Distillation) -> LowRank:
    """The trainer's averaged change."""
    assert isinstance(trainer.net, LowRank)
    change = LowRank(trainer.net.shapes, trainer.net.rank, settings.scales[1])
    change.load_state_dict(trainer.average.state)
    return change.to(trainer.device).requires_grad_(False)


def _labels(denoiser: Denoiser) -> Conditions:
    classes = denoiser.num_classes
    if classes is None:
        raise InputError("conditions", "are needed: the model has no labels", "Give a function")
    return lambda count, generator: torch.randint(classes, (count,), generator=generator)
