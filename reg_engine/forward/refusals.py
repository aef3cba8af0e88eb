"""What a stacked dual cannot pass, said with the op and the module where it was met."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import torch
from torch import nn

from ..errors import EstimatorError

__all__ = ["name_of", "refuse"]


def refuse(op: Any, why: str) -> NoReturn:
    """Raise EstimatorError: `op` met a stacked dual and `why` it cannot serve."""
    place = "" if torch.compiler.is_compiling() else _place()
    raise EstimatorError(
        f"'jvp' cannot serve this network: {name_of(op)}{place} {why}. Use rectify='vjp', "
        "'fd_batched' or 'fd'."
    )


def name_of(op: Any) -> str:
    """What an op that `__torch_function__` was given is called in a program."""
    if isinstance(op, torch.jit.ScriptFunction):
        return str(op.name)
    name = str(getattr(op, "__name__", op))
    if name in ("__get__", "__set__"):  # of a property: shape, data, ...
        return str(getattr(getattr(op, "__self__", None), "__name__", name))
    return name


def _place() -> str:
    """ " in blocks.3.attn (Attention)": the innermost module whose code is running."""
    running = list(_modules())
    if not running:
        return ""
    inner, network = running[0], running[-1]
    path = next((name for name, module in network.named_modules() if module is inner), "")
    kind = type(inner).__name__
    return f" in {path} ({kind})" if path else f" in {kind}"


def _modules() -> Iterator[nn.Module]:
    frame = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module):
            yield owner
        frame = frame.f_back  # type: ignore[assignment]
