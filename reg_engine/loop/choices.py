"""Everything that a call is told, checked and resolved: one value, which nothing changes after."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ..guidance.guidance import Guidance
from ..networks.denoisers import Denoiser
from ..plan import Plan
from ..solvers import Table

__all__ = ["Choices"]


@dataclass(frozen=True)
class Choices:
    """What a batch's rows are run with.

    Args:
        denoiser: on the schedule that is sampled in.
        guidance, plan, table: what every row does.
        weights: w of every row.
        static: every row wants the same number of network rows: graphs, or compiled blocks.
        term_weights: of every row, w of each of several terms; () = there is one.
        device, dtype: of the state.
        backend: of the guidance step.
        batch_size, memory_budget: what `auto` sizes an estimator's memory by.
        check: whether derivatives are compared with differences first.
    """

    denoiser: Denoiser
    guidance: Guidance
    plan: Plan
    table: Table
    weights: tuple[float, ...]
    device: torch.device
    dtype: torch.dtype
    backend: str
    batch_size: int | None = None
    memory_budget: float | None = None
    check: bool = True
    static: bool = False
    term_weights: tuple[tuple[float, ...], ...] = ()

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """Every network that a row may run: frozen during a batch."""
        return (*self.denoiser.modules, *self.guidance.reference.modules)
