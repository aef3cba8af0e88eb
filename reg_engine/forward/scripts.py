"""Functions of TorchScript: they take a tensor's memory without asking its class."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.jit import ScriptFunction
from torch.utils._pytree import tree_flatten

from ..networks.sharing import held
from .fallback import fallback
from .tensor import is_dual

__all__ = ["asked"]


def asked() -> AbstractContextManager[None]:
    """Context in which a scripted or traced function is an op without a rule, and not one that
    loses the tangents of stacked duals without a word."""
    return held([(ScriptFunction, "__call__", _asking)])


def _asking() -> Callable[[], None] | None:
    before: Any = ScriptFunction.__call__
    if hasattr(before, "asks"):
        return None

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not any(is_dual(value) for value in tree_flatten((args, kwargs))[0]):
            return before(self, *args, **kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            return fallback(self, *args, **kwargs)

    call.asks = True  # type: ignore[attr-defined]
    ScriptFunction.__call__ = call  # type: ignore[method-assign]

    def undo() -> None:
        ScriptFunction.__call__ = before  # type: ignore[method-assign]

    return undo
