"""Averaged weights and checkpoint files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..storage.files import replacing
from ..storage.readers import open_archive, open_regular, refusing

__all__ = ["Average", "REMEDY", "check_values", "load_state", "save_state"]

REMEDY = "Delete it to start anew, or give another folder"
_KINDS: dict[str, type | tuple[type, ...]] = {
    "task": str,
    "config": dict,
    "data": str,
    "step": int,
    "seconds": (int, float),
    "net": dict,
    "average": dict,
    "optimizer": dict,
    "rng": Tensor,
}


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
        """Take a saved average of the same network.

        Raises:
            ValueError: it is of another one, or holds NaN.
        """
        check_values(self.state, state)
        for name, value in self.state.items():
            value.copy_(state[name])


def check_values(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """ValueError unless both have the same names and shapes, and theirs are finite."""
    if ours.keys() != theirs.keys():
        raise ValueError(f"without {sorted(ours.keys() - theirs.keys())[:3]}")
    for name, value in ours.items():
        if theirs[name].shape != value.shape or not theirs[name].isfinite().all():
            raise ValueError(f"{name} has another shape, or NaN")


def _values(net: nn.Module) -> dict[str, Tensor]:
    return {name: v for name, v in net.state_dict().items() if v.is_floating_point()}


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    with replacing(path, "checkpoint") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch's writer hides that the disk is full
                raise error.__context__ from None
            raise


def load_state(path: Path) -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values are ever unpickled.

    Raises:
        InputError: the file is damaged or holds something else.
    """
    with (
        refusing("checkpoint", f"{path} cannot be read", REMEDY),
        open_regular(path) as file,
        open_archive(file),  # no member claims more than the file holds
    ):
        file.seek(0)
        state = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or any(
        not isinstance(state.get(name), kind) for name, kind in _KINDS.items()
    ):
        raise InputError("checkpoint", f"{path} is no training checkpoint", REMEDY)
    return state
