"""What takes a tensor's memory without asking its class: scripted and compiled functions,
constructors of tensors, and the transforms of torch.func."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.func
from torch.jit import ScriptFunction
from torch.utils._pytree import tree_flatten

from ..networks.sharing import Change, held
from .fallback import fallback
from .refusals import refuse
from .tensor import is_dual

__all__ = ["asked"]

# Where a function lies that gives plain numbers for a stacked dual, and what a user calls it.
LOSING: dict[tuple[Any, str], str] = {
    (torch, "tensor"): "torch.tensor",
    (torch, "as_tensor"): "torch.as_tensor",
    (torch, "asarray"): "torch.asarray",
    (torch.nested, "nested_tensor"): "nested_tensor",
    (torch.utils.dlpack, "to_dlpack"): "to_dlpack",
    (sys.modules.get("torch._functorch.vmap"), "_add_batch_dim"): "vmap",
    (sys.modules.get("torch._functorch.eager_transforms"), "_wrap_for_grad"): "torch.func",
}


def asked() -> AbstractContextManager[None]:
    """Context in which no such function loses the tangents of stacked duals without a word: a
    scripted or traced one is an op without a rule, `torch.compile` leaves its functions as they
    were written, and the rest are refused."""
    if torch.compiler.is_compiling():  # a graph has neither
        return nullcontext()
    changes: list[Change] = [(ScriptFunction, "__call__", _asking)]
    if "torch._dynamo" in sys.modules:  # otherwise nothing is compiled
        changes.append((torch.compiler, "set_stance", _eager))
    for (home, name), called in LOSING.items():
        if hasattr(home, name):
            changes.append((home, name, partial(_refusing, home, name, called)))
    return held(changes)


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


def _eager() -> Callable[[], None]:
    stance = torch.compiler.set_stance("force_eager")
    return lambda: stance.__exit__(None, None, None)


def _refusing(home: Any, name: str, called: str) -> Callable[[], None] | None:
    before = getattr(home, name)
    if hasattr(before, "asks"):
        return None

    def call(*args: Any, **kwargs: Any) -> Any:
        found = before(*args, **kwargs)
        given = args[0] if args and isinstance(args[0], list | tuple) else args[:1]
        if any(map(is_dual, given)) and not is_dual(found):
            refuse(called, "copies numbers without their tangent")
        return found

    call.asks = True  # type: ignore[attr-defined]
    setattr(home, name, call)
    return lambda: setattr(home, name, before)
