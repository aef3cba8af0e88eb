"""Training a postprocessing flow, and keeping it in a file."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, choice
from ..models import UNet
from ..models.checkpoint import ARCHITECTURES, build, check_use
from ..networks.denoisers import Denoiser
from ..schedules import Flow
from ..storage.readers import refusing
from ..storage.weights import save_weights
from .flow import Postprocess
from .neighbours import Features, Neighbours
from .task import FlowTask, Net

__all__ = ["load_postprocess", "save_postprocess", "train_postprocess"]

NETWORKS = tuple(name for name in ARCHITECTURES if name.startswith("unet"))
CHOICES = ("solver", "steps", "scale", "rtol", "atol", "batch_size")  # of Postprocess
MOST_STEPS = 10_000  # that a file may ask for


def train_postprocess(
    samples: Tensor,
    real: Tensor,
    folder: Path | str,
    *,
    steps: int,
    labels: Tensor | None = None,
    real_labels: Tensor | None = None,
    num_classes: int | None = None,
    label_dropout: float = 0.1,
    k: int = 20,
    within_class: bool = False,
    features: Features | None = None,
    net: Net | None = None,
    device: str | torch.device = "cpu",
    show: bool = True,
    flow: dict[str, Any] | None = None,
    deadline: float | None = None,
    compact: bool = False,
    **numbers: Any,
) -> Postprocess:
    """Train a flow from samples to real ones near them, or go on bitwise with the run in `folder`.

    The same for a dedicated flow (samples of one scale) and one for all scales (`pool` of several).

    Args:
        samples: (N, *sample_shape), generated. real: (M, *sample_shape).
        folder: of this run (checkpoint, loss.csv); made if missing.
        steps: of training; `numbers` are other fields of TrainConfig: batch_size (128), lr (1e-3),
            seed (0), warmup (a tenth of the steps, 400 at most), ...
        labels: (N,) of the samples: a class-conditional flow. None: unconditional.
        real_labels: (M,), for `within_class`: search among real samples of the sample's label.
        num_classes: None = the largest label + 1.
        label_dropout: share trained with the null label, so that the flow can be guided.
        k: nearest real samples to draw from; 20 and 40 in the paper's Tab. 2.
        features: space of the search, as Neighbours; None = the values themselves.
        net: a network, or a function that makes one, called as net(x, t, cond); None = a UNet for
            images (channels, H, W), a ToyNet for points (dim,).
        device: where to train; the flow stays there. show: progress on standard error.
        flow: arguments of Postprocess: solver, steps, scale, ...
        deadline, compact: as Trainer.

    Raises:
        InputError: bad or too few samples (k > M); a folder with a run on other data; FAISS or
            torchdiffeq missing.
        KeyboardInterrupt: a signal or (PieceOver) the deadline stopped it; the same call goes on.
    """
    near = _nearest(samples, real, labels, real_labels, k, within_class, features)
    make = net or partial(default_net, samples.shape[1:], _rows(labels, num_classes))
    classes = {"labels": labels, "num_classes": num_classes, "label_dropout": label_dropout}
    task = FlowTask(samples, real, near, make, device=device, **classes)  # type: ignore[arg-type]
    numbers = {"steps": steps, "warmup": min(400, steps // 10), "lr": 1e-3, **numbers}
    found = _trained(task, Path(folder), numbers, deadline, show=show, compact=compact)
    return Postprocess(_denoiser(found, samples.shape[1:], task.num_classes), **(flow or {}))


def _trained(
    task: FlowTask, folder: Path, numbers: dict[str, Any], deadline: float | None, **kept: bool
) -> nn.Module:
    """The averaged network; `kept` are other arguments of Trainer."""
    # Here: it brings the progress bars of rich along.
    from ..training import PieceOver, TrainConfig, Trainer

    config = TrainConfig(**numbers)
    trainer = Trainer(task, config, folder, device=task.device, **kept)  # type: ignore[arg-type]
    if not trainer.run(deadline=deadline):
        piece = PieceOver(f"step {trainer.step} of {config.steps}")
        raise piece if trainer.stopped == "piece" else KeyboardInterrupt
    found = task.build().to(task.device)
    found.load_state_dict({**trainer.net.state_dict(), **trainer.average.state})
    return found.eval()


def _nearest(
    samples: Tensor,
    real: Tensor,
    labels: Tensor | None,
    real_labels: Tensor | None,
    k: int,
    within_class: bool,
    features: Features | None,
) -> Tensor:
    """Places in `real` of each sample's k nearest, (N, k)."""
    if within_class and (labels is None or real_labels is None):
        missing = "labels" if labels is None else "real_labels"
        raise InputError(missing, "are missing", "within_class needs labels and real_labels")
    index = Neighbours(real, real_labels, features)
    return index.search(samples, k, labels if within_class else None)[1]


def default_net(shape: tuple[int, ...], rows: int) -> nn.Module:
    """A U-Net for images (C, H, W), H and W multiples of 4; a ToyNet for points (dim,).

    Args:
        rows: of the label table, >= 1, the null label included.
    """
    if len(shape) == 3 and shape[1] % 4 == shape[2] % 4 == 0:
        return UNet(shape[0], num_labels=rows)
    if len(shape) == 1:
        from ..models.toy import FLOW_TIMES, ToyNet

        return ToyNet(shape[0], rows, time_scale=FLOW_TIMES)
    raise InputError(
        "net", f"is not given for samples {tuple(shape)}", "Give one called net(x, t, cond)"
    )


def save_postprocess(flow: Postprocess, path: Path | str) -> None:
    """Write a flow whose network is one of `reg_engine.models` as float16 safetensors.

    Raises:
        InputError: another network, which a file could not rebuild.
    """
    denoiser = flow.denoiser
    kinds = [name for name in NETWORKS if type(denoiser.net) is ARCHITECTURES[name]]
    if not kinds or not isinstance(denoiser.net, nn.Module):
        raise InputError(
            "flow",
            f"has a {type(denoiser.net).__name__}, which a file cannot rebuild",
            "Keep its state_dict yourself, or train a reg_engine.models.UNet",
        )
    description = {
        "architecture": kinds[0],
        "arguments": denoiser.net.arguments,
        "use": "postprocess",
        "sample_shape": list(denoiser.sample_shape),
        "num_classes": denoiser.num_classes,
        "flow": {name: getattr(flow, name) for name in CHOICES},
    }
    save_weights(Path(path), denoiser.net.state_dict(), description)


def load_postprocess(path: str | os.PathLike[str], **choices: Any) -> Postprocess:
    """A flow that `save_postprocess` wrote, float32, on the CPU.

    Args:
        choices: arguments of Postprocess that replace those in the file.

    Raises:
        InputError: no such file; a pickle; a damaged file; another network's.
    """
    for name in choices:
        choice("choices", name, CHOICES)
    net, description = build(Path(path), *NETWORKS)
    remedy = "Give a file that save_postprocess wrote"
    with refusing("path", f"{str(path)!r} describes no postprocessing flow", remedy):
        if description["use"] != "postprocess":
            raise ValueError(f"use is {description['use']!r}")
        shape, classes = description["sample_shape"], description["num_classes"]
        check_use(net, shape, classes, classes)
        kept = {name: description["flow"][name] for name in CHOICES}
        if not 0 < kept["steps"] <= MOST_STEPS:
            raise ValueError(f"steps are {kept['steps']}")
        return Postprocess(_denoiser(net, tuple(shape), classes), **{**kept, **choices})


def _denoiser(net: nn.Module, shape: tuple[int, ...], classes: int | None) -> Denoiser:
    return Denoiser(net, "flow", Flow(), shape, classes, num_classes=classes)


def _rows(labels: Tensor | None, num_classes: int | None) -> int:
    """Rows of a network's label table: the classes and the null label; one where there are none."""
    if labels is None:
        return 1
    return (int(labels.max()) + 1 if num_classes is None else num_classes) + 1
