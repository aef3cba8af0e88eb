"""How rules are entered: by the names of ops, looked up wherever PyTorch keeps a function of that
name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tensor import COMPOSITES, RULES, Rule

__all__ = ["composite", "getters", "named", "rule"]

HOMES = (torch, F, torch._C._nn, Tensor, torch.special)


def named(names: str, homes: tuple[Any, ...] = HOMES) -> Iterator[Any]:
    """All functions that go by one of the space-separated names, in this version of PyTorch."""
    for name in names.split():
        yield from (getattr(home, name) for home in homes if hasattr(home, name))


def rule(names: str, homes: tuple[Any, ...] = HOMES) -> Callable[[Rule], Rule]:
    """Decorator: enter a function as the rule of the named ops."""

    def enter(function: Rule) -> Rule:
        for op in named(names, homes):
            RULES[op] = function
            _traced(op, function)
        return function

    return enter


def _traced(op: Any, function: Rule) -> None:
    """torch.compile asks for methods that are written in Python as if they were properties."""
    if isinstance(op, FunctionType) and op.__module__ == "torch._tensor":
        RULES[op.__get__] = partial(_bound, getattr(torch, op.__name__, op), function)


def _bound(op: Any, function: Rule, getter: Any, x: Any) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            return function(op, x, *args, **kwargs)

    return call


def composite(names: str, homes: tuple[Any, ...] = HOMES) -> Callable[[Rule], Rule]:
    """Decorator: enter a function that says the named ops in others, which have rules."""

    def enter(function: Rule) -> Rule:
        COMPOSITES.update(dict.fromkeys(named(names, homes), function))
        return function

    return enter


def getters(names: str) -> Iterator[Any]:
    """What `__torch_function__` is given for the named properties of a tensor."""
    for name in names.split():
        yield getattr(Tensor, name).__get__
