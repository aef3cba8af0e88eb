"""The sizes and the networks of the `cifar10` experiment, trained here or given."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ...data.cifar10 import CIFAR10
from ...errors import InputError
from ...evaluation.bench import Features
from ...models import NoisyClassifier, load_classifier, load_model
from ...networks.denoisers import Denoiser
from ...postprocess import classifier_features, dinov2_features
from ...resume import digest
from ...training import PieceOver, Result, train_task
from ...training.colour import ColourSettings
from ...training.colour_classifier import ColourClassifierSettings
from ..report import Report
from .pieces import number

# hours, samples: see sizes_of; piece: minutes of one run of several; features: of the Frechet
# distance; neighbours: a DINOv2 folder for postprocessing's search; the others are weights to use
# instead of training.
STAGES = ("flow", "edm", "judge", "guide")
OPTIONS = ("hours", "samples", "piece", "features", "neighbours", *STAGES)


@dataclass(frozen=True)
class Sizes:
    """How much of everything; `minutes` is of training, by stage, "post" for each flow."""

    minutes: Mapping[str, float] | None  # None: `steps` each instead
    steps: int
    batch_size: int  # of training
    lr: float  # of the flow and the EDM model
    samples: int  # a point, and of each scale in a postprocessing pool
    sampling_batch: int
    solver_steps: tuple[int, int, int]  # of Heun's method: flow, EDM model, postprocessing
    k: int  # nearest real samples that postprocessing draws from
    train: int | None  # images used; None = all
    test: int | None
    colour: ColourSettings
    judge: ColourClassifierSettings  # the guide is as the judge, but sees noise


# About an hour on a GPU of the H100's class by arithmetic, not by measurement: 45 minutes of
# training; then 10 million forward passes of 12.1 GFLOP (37 points of samples, six pools, and the
# postprocessing of each), 14 minutes at 150 TFLOP/s.
FULL = Sizes(
    minutes={"flow": 20.0, "edm": 14.0, "judge": 2.0, "guide": 2.0, "post": 3.3},
    steps=0,
    batch_size=256,
    lr=4e-4,
    samples=2500,
    sampling_batch=125,
    solver_steps=(15, 18, 10),
    k=20,
    train=None,
    test=None,
    colour=ColourSettings(),
    judge=ColourClassifierSettings(),
)
# A few steps of everything, so that each line of the code runs: its numbers mean nothing.
TINY = Sizes(
    minutes=None,
    steps=3,
    batch_size=4,
    lr=1e-3,
    samples=16,
    sampling_batch=8,
    solver_steps=(2, 2, 2),
    k=20,
    train=400,
    test=100,
    colour=ColourSettings(
        channels=32, multipliers=(1, 1), blocks=1, attention=(16,), head_width=32
    ),
    judge=ColourClassifierSettings(channels=(16, 32), features=32, embedding=32, blocks=1),
)


def sizes_of(report: Report) -> Sizes:
    """FULL on a GPU (with `hours` and `samples` of report.options), TINY elsewhere.

    Raises:
        InputError: a number out of range.
    """
    if report.quick or report.device.type != "cuda":
        return TINY
    hours = number(report, "hours", 1.0)
    count = int(number(report, "samples", FULL.samples))
    if count < 100:
        raise InputError("--set samples", f"is {count}", "Give 100 or more; FID needs thousands")
    assert FULL.minutes is not None
    minutes = {name: value * hours for name, value in FULL.minutes.items()}
    return replace(FULL, minutes=minutes, samples=count)


def features_from(path: str | os.PathLike[str], device: torch.device) -> tuple[Features, str]:
    """A user's feature network and its name in words.

    Args:
        path: a .safetensors classifier of `reg-engine train cifar10-classifier`, or the folder of a
            DINOv2 model that transformers saved (its CLS token).

    Raises:
        InputError: neither of these; transformers is missing.
    """
    if Path(path).is_dir():
        name = f"DINOv2 CLS ({Path(path).name})"
        return dinov2_features(path, "cls", device=device), name
    if Path(path).suffix != ".safetensors":
        raise InputError(
            "--set features",
            f"{os.fspath(path)!r} is no feature network",
            "Give a DINOv2 folder, or a .safetensors of `reg-engine train cifar10-classifier`",
        )
    return classifier_features(load_classifier(path).to(device)), f"classifier {Path(path).name}"


@dataclass(frozen=True)
class Models:
    """What the points are sampled and scored with."""

    flow: Denoiser
    edm: Denoiser
    judge: NoisyClassifier  # gives features, agreement and confidence; never a guide
    guide: NoisyClassifier  # of classifier guidance, another network
    stages: list[dict[str, Any]]  # name, optimizer steps, seconds, parameters, scores
    files: dict[str, str]  # weights, by name
    digests: dict[str, str]  # of the weights, as float32


def load_models(
    report: Report, sizes: Sizes, data: CIFAR10, deadline: float | None = None
) -> Models:
    """Networks from the files in report.options, the others trained in report.work; resumable.

    Raises:
        PieceOver: the deadline (of time.monotonic()) came first.
        KeyboardInterrupt: a signal stopped the training; the same command goes on with it.
        InputError: a file that holds something else.
    """
    stages: list[dict[str, Any]] = []
    files = {name: report.options[name] for name in STAGES if name in report.options}
    loaded = {name: _loaded(name, file) for name, file in files.items()}  # bad ones die here
    of_noise = replace(sizes.judge, clean_share=0.1)
    tasks = {
        "judge": ("cifar10-classifier", sizes.judge, report.seed, 1e-3),
        "guide": ("cifar10-classifier", of_noise, report.seed + 1, 1e-3),
        "flow": ("cifar10", replace(sizes.colour, prediction="flow"), report.seed, sizes.lr),
        "edm": ("cifar10-edm", replace(sizes.colour, prediction="edm"), report.seed, sizes.lr),
    }
    for name, (task, settings, seed, lr) in tasks.items():
        if name in files:
            stages.append({"name": name, "file": os.path.basename(files[name])})
            continue
        report.say(f"training {name}")
        numbers = {"settings": settings, "seed": seed, "lr": lr, "deadline": deadline}
        result = _trained(report, sizes, name, task, data, **numbers)
        files[name] = str(result.weights)
        stages.append(
            {
                "name": name,
                "steps": result.steps,
                "seconds": result.seconds,
                "parameters": result.parameters,
                **(result.scores if sizes.minutes is not None else {}),
            }
        )
        loaded[name] = _loaded(name, files[name])
    digests = {name: digest(loaded[name]) for name in STAGES} | {"data": digest(data)}
    flow, edm, judge, guide = (loaded[name] for name in STAGES)
    for denoiser in (flow, edm):
        to_device(denoiser, report.device)
    classifiers = judge.to(report.device), guide.to(report.device)
    return Models(flow, edm, *classifiers, stages, files, digests)


def _trained(
    report: Report, sizes: Sizes, name: str, task: str, data: CIFAR10, **numbers: Any
) -> Result:
    epochs, minutes = sizes.steps * sizes.batch_size / len(data.train_labels), None
    if sizes.minutes is not None:
        epochs, minutes = None, sizes.minutes[name]  # type: ignore[assignment]
    result = train_task(
        task,
        data,
        report.work / name,
        epochs=epochs,
        minutes=minutes,
        device=str(report.device),
        dtype=dtype_of(report.device),
        batch_size=sizes.batch_size,
        warmup=sizes.steps or 500,
        show=sizes.minutes is not None,
        compact=numbers["deadline"] is not None,
        **numbers,
    )
    if result.stopped == "piece":
        raise PieceOver(f"network {name}: step {result.step} of {result.steps}")
    if not result.finished:
        raise KeyboardInterrupt  # its state is saved: the same command goes on
    return result


def _loaded(name: str, file: str) -> Any:
    """A Denoiser or a classifier of colour images, on the CPU."""
    found: Any
    if name in ("judge", "guide"):
        found = load_classifier(file)
        fits, kind = found.arguments["image_channels"] == 3, "a classifier of grey images"
    else:
        found = load_model(file)
        fits = found.prediction == name and found.sample_shape == (3, 32, 32)
        kind = f"a {found.prediction!r} model of samples {found.sample_shape}"
    if not fits:
        task = {"flow": "cifar10", "edm": "cifar10-edm"}.get(name, "cifar10-classifier")
        raise InputError(
            f"--set {name}",
            f"{os.path.basename(file)!r} is {kind}",
            f"Give one that `reg-engine train {task}` wrote",
        )
    return found


def dtype_of(device: torch.device) -> str:
    """Of networks: bfloat16 on a GPU."""
    return "bfloat16" if device.type == "cuda" else "float32"


def to_device(denoiser: Denoiser, device: torch.device) -> None:
    """Move it there, to dtype_of(device); the state of the sampler stays float32."""
    for module in denoiser.modules:
        module.to(device, getattr(torch, dtype_of(device)))
