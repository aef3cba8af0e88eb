"""One row of a solver's table, as a callback or a caller of `Engine.steps` sees it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["Step", "last_of", "own_copy"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Step:
    """What was evaluated at a row and where the state went, for one batch.

    All tensors are (B, *sample_shape) on the device of the run, and the caller's own.

    Args:
        rows: which samples of the call these are.
        index: number of the row, 0 the noisiest; a method of several stages has several rows a
            solver step, and one whose s is its t corrects the state where it stands.
        t, s: times of the schedule that is sampled in, from and to.
        x: the state x_t that the network saw.
        cond: E[x_0 | x_t, cond], not guided; the reference's where it alone is evaluated (scale 0).
        guided: the guided estimate, adjusted and clipped, that the solver took.
        x_next: the state x_s after the row; the last row's are the samples.
    """

    rows: slice
    index: int
    t: float
    s: float
    x: Tensor
    cond: Tensor
    guided: Tensor
    x_next: Tensor

    def __repr__(self) -> str:
        return f"Step({self.index}, t={self.t:g} -> {self.s:g}, {tuple(self.x.shape)})"


def own_copy(tensor: Tensor) -> Tensor:
    """A copy for the caller, without traces of inference mode."""
    with torch.inference_mode(False):
        return tensor.detach().clone()


def last_of(rows: Generator[Step, None, _T]) -> _T:
    """What a generator returns, whatever it yields."""
    while True:
        try:
            next(rows)
        except StopIteration as end:
            value: _T = end.value
            return value
