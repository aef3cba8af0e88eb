"""Averaged weights and checkpoint files."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError

__all__ = ["Average", "load_state", "save_state"]


class Average:
    """Exponential moving average of a network's parameters and floating buffers, in float32.

    `average <- decay average + (1 - decay) weight`, with decay from TrainConfig.ema_decay.
    """

    def __init__(self, net: nn.Module) -> None:
        self.state: dict[str, Tensor] = {
            name: value.detach().to(torch.float32, copy=True)
            for name, value in _values(net).items()
        }

    @torch.no_grad()
    def update(self, net: nn.Module, decay: float) -> None:
        """Move towards the network's present weights."""
        new = _values(net)
        old = list(self.state.values())
        torch._foreach_lerp_(old, [new[name].float() for name in self.state], 1.0 - decay)

    def load(self, state: dict[str, Tensor]) -> None:
        """Take a saved average of the same network."""
        for name, value in self.state.items():
            value.copy_(state[name])


def _values(net: nn.Module) -> dict[str, Tensor]:
    return {name: v for name, v in net.state_dict().items() if v.is_floating_point()}


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically: a crash leaves the old file or the new one, never a half."""
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def load_state(path: Path) -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values are ever unpickled.

    Raises:
        InputError: the file is damaged or holds something else.
    """
    remedy = "Delete it to start anew, or give another folder"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, zipfile.BadZipFile, UnpicklingError) as error:
        raise InputError("checkpoint", f"{path} cannot be read ({error})", remedy) from error
    needed = {"task", "config", "step", "seconds", "net", "average", "optimizer", "rng"}
    if not isinstance(state, dict) or not needed <= state.keys():
        raise InputError("checkpoint", f"{path} is no training checkpoint", remedy)
    return state
