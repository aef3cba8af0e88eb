"""ComfyUI's conditionings: what of them has rows, what autograd may keep, what models they bring.

A conditioning is a list of dicts, one an area or prompt. `model_conds` holds what the network is
told, each an object with `cond`; beside it stand masks, areas, controls, ranges of times.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ...networks.frozen import over_the_same_memory

__all__ = ["Conds", "has_hooks", "models_of", "ordinary", "part"]

Conds = list[dict[str, Any]]
WHOLE = ("control", "gligen")  # whose own tensors may have rows, out of sight


def has_hooks(conds: list[Conds | None]) -> bool:
    """Whether weights or options change along the way: they must be asked at its own times only."""
    return any(one.get("hooks") is not None for cond in conds for one in cond or ())


def models_of(conds: list[Conds | None]) -> Iterator[nn.Module]:
    """Networks that conditionings bring along (ControlNet)."""
    for cond in conds:
        for one in cond or ():
            control: Any = one.get("control")
            for patcher in control.get_models() if hasattr(control, "get_models") else ():
                model = getattr(patcher, "model", None)
                if isinstance(model, nn.Module):
                    yield model


def ordinary(cond: Conds) -> Conds:
    """The same with ordinary tensors over the same memory, where they were made in inference mode:
    autograd cannot save such."""
    return [_mapped(one, _ordinary) for one in cond]


def _ordinary(tensor: Tensor) -> Tensor:
    return over_the_same_memory(tensor) if tensor.is_inference() else tensor


def part(cond: Conds, rows: list[int], count: int) -> Conds | None:
    """The conditioning of some samples of `count`; None: it is not known which of it has rows."""
    if any(one.get(name) is not None for one in cond for name in WHOLE):
        return None
    if not all(_known(value, count) for one in cond for value in _values(one)):
        return None
    taken = torch.tensor(rows)
    return [_mapped(one, lambda t: t if len(t) == 1 else t[taken.to(t.device)]) for one in cond]


def _values(one: dict[str, Any]) -> Iterator[Any]:
    yield from one.get("model_conds", {}).values()
    if isinstance(one.get("mask"), Tensor):
        yield one["mask"]


def _known(value: Any, count: int) -> bool:
    """Whether it has one row, a row a sample, or is the same for all."""
    told = getattr(value, "cond", value)
    if isinstance(told, Tensor):
        return told.dim() > 0 and len(told) in (1, count)
    return told is None or isinstance(told, (str, bool, int, float))


def _mapped(one: dict[str, Any], change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    found = dict(one)
    if isinstance(found.get("mask"), Tensor):
        found["mask"] = change(found["mask"])
    told = found.get("model_conds")
    if told is not None:
        found["model_conds"] = {name: _changed(value, change) for name, value in told.items()}
    return found


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    told = getattr(value, "cond", None)
    if isinstance(told, Tensor):
        made: Any = change(told)
    elif isinstance(told, list) and any(isinstance(v, Tensor) for v in told):
        made = [change(v) if isinstance(v, Tensor) else v for v in told]
    else:
        return value
    again = copy.copy(value)
    again.cond = made
    return again
