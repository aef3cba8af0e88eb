"""Small arguments of every op, for the tests of the door and of the registered ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from reg_engine.ops import door as ops
from reg_engine.ops import formulas
from reg_engine.ops.coefficients import COLUMNS, FIRST_B

OPS = ("combine", "guided_step", "reduce", "probe")


def arguments(name: str, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """Keyword arguments of `ops.<name>`, new tensors each time, always the same values."""
    g = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64).to(dtype)

    x, cond, ref, term, noise = (draw(2, 3, 4) for _ in range(5))
    table, gain, history = draw(3, FIRST_B + 2), draw(2), draw(2, 2, 3, 4)
    table[:, COLUMNS.index("limit")] = 1.5
    step = torch.tensor(1)
    return {
        "combine": {"cond": cond, "ref": ref, "term": term, "w": 1.5, "channels": 2},
        "guided_step": {
            "x": x,
            "cond": cond,
            "table": table,
            "step": step,
            "ref": ref,
            "term": term,
            "weight": gain.flip(0),
            "gain": gain,
            "noise": noise,
            "history": history,
            "nonfinite": None,
            "channels": 2,
        },
        "reduce": {"u": x, "v": cond, "w": ref},
        "probe": {"x": x, "direction": cond, "length": gain, "table": table, "step": step},
    }[name]


def differentiable(name: str) -> tuple[list[str], dict[str, Any]]:
    """Names of the arguments to differentiate by, and all arguments; no ring: one is written to."""
    given = arguments(name)
    if name == "guided_step":
        given["table"] = given["table"][:, : FIRST_B + 1]
        given["history"] = None
    shared = ("table", "step", "w", "channels", "history", "nonfinite")
    return [key for key in given if key not in shared or name == "reduce"], given


def registered(name: str) -> Callable[..., Tensor]:
    """torch.ops.reg_engine.<name>, callable with keywords."""
    op: Callable[..., Tensor] = getattr(torch.ops.reg_engine, name).default
    return op


def door(name: str) -> Callable[..., Tensor]:
    """ops.<name>."""
    function: Callable[..., Tensor] = getattr(ops, name)
    return function


def twin(name: str) -> Callable[..., Tensor]:
    """reference.<name>."""
    function: Callable[..., Tensor] = getattr(formulas, name)
    return function
