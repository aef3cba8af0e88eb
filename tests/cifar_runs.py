"""What the tests of the CIFAR-10 experiment share: a report, and barely trained networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from reg_engine.data.cifar10 import CIFAR10
from reg_engine.evaluation.bench import Bench
from reg_engine.experiments import Report
from reg_engine.experiments.cifar10.data import load_data
from reg_engine.experiments.cifar10.models import TINY, Models, load_models

__all__ = ["Trained", "bench_of", "report", "trained_in"]


class Trained(NamedTuple):
    report: Report
    models: Models
    data: CIFAR10


def report(folder: Path, **choices: Any) -> Report:
    return Report("cifar10", "CIFAR-10", folder, **{"quick": True, **choices})


def trained_in(folder: Path) -> Trained:
    own = report(folder)
    data, _ = load_data(own)
    return Trained(own, load_models(own, TINY, data), data)


def bench_of(models: Models, data: CIFAR10, labels: Tensor, **choices: Any) -> Bench:
    """As the experiment makes it."""
    generator, train = torch.Generator().manual_seed(0), data.train_images
    return Bench(models.judge, labels, data.test_images, 20, generator, train=train, **choices)
