"""A tiny training run on real digits, and a pickle that must never be loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from reg_engine.training import TrainConfig, Trainer
from reg_engine.training.diffusion import DiffusionSettings, DiffusionTask

SETTINGS = DiffusionSettings(channels=(16, 32), heads=1, embedding=32)


def digits() -> tuple[Any, Any]:
    """1797 real 8x8 digits as bytes, and their labels."""
    found = load_digits()
    return (found.images * 15).astype(np.uint8), found.target.astype(np.int64)


def tiny(folder: Path | str, show: bool = False, **numbers: Any) -> Trainer:
    config = TrainConfig(**{"steps": 60, "batch_size": 32, "warmup": 5, "seed": 3, **numbers})
    task = DiffusionTask(*digits(), SETTINGS)
    return Trainer(task, config, folder, save_seconds=0.0, log_every=7, show=show)


def weights(trainer: Trainer) -> dict[str, Tensor]:
    raw = {f"net.{name}": value for name, value in trainer.net.state_dict().items()}
    return raw | {f"average.{name}": value for name, value in trainer.average.state.items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)
