"""A fingerprint of a model: cheap enough for every call, and another one for other weights."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

from ..storage.digest import digest

__all__ = ["Model", "fingerprint"]

LOOKED_AT = 16  # values of each tensor


class Model(Protocol):
    """What is read of a Denoiser."""

    net: Any
    prediction: str
    schedule: Any
    sample_shape: tuple[int, ...]
    num_classes: int | None

    @property
    def modules(self) -> tuple[nn.Module, ...]: ...


def fingerprint(denoiser: Model, rounded: torch.dtype = torch.float32) -> str:
    """SHA-256 in hexadecimal of what the model predicts, its shape, and its networks' tensors:
    names, shapes, and 16 values of each in float32 (all of a large network would take seconds).
    With `rounded`, of the model as it is after `to(rounded)`.

    Where there is no torch module (a function, another framework), the function itself counts; ""
    where nobody can say whether two of such are equal. Schedule, device and what a network predicts
    in do not count: the denoised estimate at a noise level is the same.
    """
    told = (denoiser.sample_shape, denoiser.num_classes)
    tensors: list[Any] = []
    for number, module in enumerate(denoiser.modules):
        for name, tensor in module.state_dict().items():
            stride = max(1, tensor.numel() // LOOKED_AT)
            some = tensor.detach().flatten()[::stride][:LOOKED_AT]
            some = some.to(rounded) if some.is_floating_point() else some
            tensors.append((number, name, tuple(tensor.shape), some.float().cpu()))
    if tensors:
        return digest(told, tensors)
    try:
        return digest(told, denoiser.net)
    except TypeError:  # it holds what has no digest: a lock, a generator
        return ""
