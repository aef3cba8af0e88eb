"""The images of the `cifar10` experiment: CIFAR-10, or stand-ins where a quick run has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...data.cifar10 import CIFAR10, find_cifar10, load_cifar10
from ..report import Report


def load_data(
    report: Report, train: int | None = None, test: int | None = None
) -> tuple[CIFAR10, str]:
    """The images, and what they are, in words: CIFAR-10, or stand-ins in a quick run without it.

    Args:
        report: its data and REG_ENGINE_DATA are looked at; decoded pictures are kept in its work.
        train, test: images to draw of each part; None = all.

    Raises:
        InputError: no CIFAR-10 in a run that is not quick; a path that cannot be read.
    """
    given = report.data
    if given is not None and Path(given).name == "mnist.npz":
        given = None  # `experiment all --data mnist.npz`: the other experiment's
    if report.quick and find_cifar10(given) is None:
        data, kind = _stand_ins(report.generator(90)), "stand-in images, no CIFAR"
    else:
        data = load_cifar10(given, cache=report.work / "cifar10.npz")
        kind = "CIFAR-10 from JPEG files (lossy)" if data.lossy else "CIFAR-10"
    generator = report.generator(91)
    rows = []
    for size, most in ((len(data.train_labels), train), (len(data.test_labels), test)):
        order = torch.randperm(size, generator=generator)[:most] if most else torch.arange(size)
        rows.append(order.sort().values.numpy())
    chosen = CIFAR10(
        data.train_images[rows[0]],
        data.train_labels[rows[0]],
        data.test_images[rows[1]],
        data.test_labels[rows[1]],
        data.lossy,
    )
    return chosen, kind


def _stand_ins(generator: torch.Generator) -> CIFAR10:
    """Stripes whose colour and slant depend on a label: to run code with, not to learn from."""
    count = 500
    labels = torch.arange(count) % 10
    phase = torch.rand(count, 1, 1, generator=generator)
    angle = labels.reshape(-1, 1, 1) * 0.3
    axis = torch.arange(32) / 32
    along = angle.cos() * axis[:, None] + angle.sin() * axis
    wave = (2 * torch.pi * (2 * along + phase)).sin()[..., None]
    shade = (2 * torch.pi * (labels[:, None] / 10 + torch.arange(3) / 3)).cos()[:, None, None]
    noise = torch.rand(count, 32, 32, 3, generator=generator)
    images: Any = (127 + 60 * wave * shade + 60 * noise).to(torch.uint8).numpy()
    names: Any = labels.numpy().astype(np.int64)
    return CIFAR10(images[:400], names[:400], images[400:], names[400:])
