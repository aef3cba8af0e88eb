"""The tasks that `reg-engine train` knows, from data to a file of weights."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..data.cifar10 import CIFAR10, load_cifar10
from ..data.mnist import MNIST, load_fashion, load_mnist
from ..errors import InputError, choice
from ..storage.readers import refusing
from ..storage.weights import read, save_weights
from ..values import usable
from .classification import ClassifierTask, accuracy
from .colour import ColourSettings, ColourTask
from .colour_classifier import ColourClassifierTask
from .config import TrainConfig
from .diffusion import DiffusionTask
from .state import REMEDY, load_state
from .trainer import Trainer

__all__ = ["TASKS", "Recipe", "Result", "export", "plan_steps", "train_task"]

AnyTask = DiffusionTask | ClassifierTask | ColourTask | ColourClassifierTask
Data = MNIST | CIFAR10
RATE_STEPS = 12  # steps that measure the speed for --minutes, after two to warm up


@dataclass(frozen=True)
class Recipe:
    """A task and the settings that suit it.

    Args:
        task: made from images, labels, settings and a device.
        epochs: how long, unless said otherwise.
        lr: peak learning rate.
        file: name of the exported weights.
        load: reads its data from a path, or finds them without one.
    """

    task: Callable[..., AnyTask]
    epochs: float
    lr: float
    file: str
    load: Callable[..., Data] = load_mnist


def _edm(images: Any, labels: Any, settings: Any = None, device: str = "cpu") -> ColourTask:
    return ColourTask(images, labels, settings or ColourSettings("edm"), device)


_fashion = partial(DiffusionTask, data="fashion")
_fashion_judge = partial(ClassifierTask, data="fashion")

TASKS = {
    "mnist": Recipe(DiffusionTask, 40.0, 2e-3, "mnist.safetensors"),
    "mnist-classifier": Recipe(ClassifierTask, 6.0, 2e-3, "mnist_classifier.safetensors"),
    "fashion": Recipe(_fashion, 40.0, 2e-3, "fashion.safetensors", load_fashion),
    "fashion-classifier": Recipe(
        _fashion_judge, 20.0, 2e-3, "fashion_classifier.safetensors", load_fashion
    ),
    "cifar10": Recipe(ColourTask, 60.0, 2e-4, "cifar10.safetensors", load_cifar10),
    "cifar10-edm": Recipe(_edm, 60.0, 2e-4, "cifar10_edm.safetensors", load_cifar10),
    "cifar10-classifier": Recipe(
        ColourClassifierTask, 30.0, 1e-3, "cifar10_classifier.safetensors", load_cifar10
    ),
}


@dataclass(frozen=True)
class Result:
    """What a run has come to: `weights` is None while it is unfinished, and `stopped` says why it
    is: "piece", or a signal's name."""

    task: str
    finished: bool
    step: int
    steps: int
    seconds: float
    parameters: int
    weights: str | None
    scores: dict[str, float]
    stopped: str | None = None


def train_task(
    name: str,
    data: Data,
    folder: Path | str,
    *,
    settings: Any = None,
    epochs: float | None = None,
    minutes: float | None = None,
    device: str = "cpu",
    show: bool = True,
    announce: bool | None = None,
    export_now: bool = False,
    start: Path | str | None = None,
    deadline: float | None = None,
    compact: bool = False,
    compiled: bool = False,
    **numbers: Any,
) -> Result:
    """Train a task, or go on with the run in `folder`; when done, export its averaged weights.

    Args:
        name: a key of TASKS; settings: of this task, None = its own defaults.
        data: images and labels.
        folder: of this run; made if missing.
        epochs: passes through the training set; default: the recipe's.
        minutes: instead of epochs: as many steps as fit, by the speed measured on this machine. A
            run that goes on keeps the number of steps it began with.
        device: "cpu" or "cuda"; show, announce, compact, compiled: as Trainer.
        start: a file of the same task's weights to go on from with a new schedule.
        export_now: do not train; export the averaged weights of the checkpoint as they are.
        deadline: of time.monotonic(), at which a piece of the run ends; see Trainer.run.
        numbers: fields of TrainConfig: batch_size, lr, seed, dtype, ...

    Raises:
        InputError: an unknown task; a noise_mean of another than mnist and fashion; both epochs
            and minutes; a device that is missing; a folder with another run; nothing to export.
    """
    recipe = TASKS[choice("task", name, TASKS)]
    folder = Path(folder)
    usable(device)
    digest, weights = _start(start)
    config = TrainConfig(steps=1, start=digest, **{"lr": recipe.lr, **numbers})
    task = recipe.task(data.train_images, data.train_labels, settings=settings, device=device)
    if "noise_mean" in numbers and not isinstance(task, DiffusionTask):
        raise InputError("noise_mean", f"is no setting of {name}", "Leave it out")
    if export_now or (minutes is not None and (folder / "checkpoint.pt").exists()):
        config = _as_begun(config, folder, whole=export_now)
    else:
        passes = recipe.epochs if epochs is None else epochs
        config = replace(config, steps=plan_steps(task, config, device, passes, minutes, epochs))
    if isinstance(task, DiffusionTask):
        task.settings = replace(task.settings, log_sigma_mean=config.noise_mean)
    kept: dict[str, Any] = {"device": device, "show": show, "announce": announce}
    kept |= {"start": weights, "compact": compact, "compiled": compiled}
    trainer = Trainer(task, config, folder, **kept)
    finished = trainer.step >= config.steps if export_now else trainer.run(deadline=deadline)
    path = export(trainer, task, folder / recipe.file) if finished or export_now else None
    return _result(name, trainer, finished, path, _scores(trainer, task, data) if path else {})


def _result(
    name: str, trainer: Trainer, finished: bool, path: Path | None, scores: dict[str, float]
) -> Result:
    return Result(
        task=name,
        finished=finished,
        step=trainer.step,
        steps=trainer.config.steps,
        seconds=round(trainer.seconds, 1),
        parameters=sum(p.numel() for p in trainer.net.parameters()),
        weights=None if path is None else str(path),
        scores=scores,
        stopped=trainer.stopped,
    )


def _as_begun(config: TrainConfig, folder: Path, whole: bool) -> TrainConfig:
    """The config of the run in `folder`; not `whole`: only its number of steps."""
    checkpoint = folder / "checkpoint.pt"
    if not checkpoint.exists():
        raise InputError("export", f"there is no {checkpoint}", "Train first")
    theirs = load_state(checkpoint)["config"]
    with refusing("checkpoint", f"{checkpoint} has no settings of a run", REMEDY):
        return _from_dict(theirs) if whole else replace(config, steps=theirs["steps"])


def _start(path: Path | str | None) -> tuple[str, dict[str, Tensor] | None]:
    """(digest, weights) of a file to go on from."""
    if path is None:
        return "", None
    weights, _ = read(Path(path))
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
    return digest, {name: value.float() for name, value in weights.items()}


def plan_steps(
    task: AnyTask,
    config: TrainConfig,
    device: str,
    epochs: float,
    minutes: float | None,
    asked: float | None = None,
) -> int:
    """Steps for a number of epochs, or for minutes by the speed of a few trial steps.

    Raises:
        InputError: neither positive, or both asked for.
    """
    if minutes is None:
        if not (math.isfinite(epochs) and epochs > 0):
            raise InputError("epochs", f"is {epochs}", "Give a positive number")
        return math.ceil(epochs * task.size / config.batch_size)
    if asked is not None:
        raise InputError("minutes", "is given together with epochs", "Give one of them")
    if not (math.isfinite(minutes) and minutes > 0):
        raise InputError("minutes", f"is {minutes}", "Give a positive number")
    with tempfile.TemporaryDirectory() as folder:
        trial = Trainer(task, replace(config, steps=10**6), folder, device=device, show=False)
        trial.run(until=2)
        before = trial.seconds
        trial.run(until=2 + RATE_STEPS)
    return max(1, int(minutes * 60 * RATE_STEPS / (trial.seconds - before)))


def export(trainer: Trainer, task: AnyTask, path: Path) -> Path:
    """Write the averaged weights as float16 safetensors with all a reader needs."""
    description = {
        **task.metadata(trainer.net),
        "training": trainer.config.as_dict(),
        "step": trainer.step,
        "seconds": round(trainer.seconds, 1),
    }
    save_weights(path, trainer.average.state, description)
    return path


def _from_dict(values: dict[str, Any]) -> TrainConfig:
    return TrainConfig(**{**values, "betas": tuple(values["betas"])})


def _scores(trainer: Trainer, task: AnyTask, data: Data) -> dict[str, float]:
    """Accuracy of the averaged classifier on clean test images; nothing for a generator."""
    if not isinstance(task, ClassifierTask | ColourClassifierTask):
        return {}
    net: nn.Module = task.build().to(trainer.device)
    net.load_state_dict(trainer.average.state)
    return {"test_accuracy": accuracy(net.eval(), data.test_images, data.test_labels)}
