"""What one batch carries from row to row, all of it on the device."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .. import ops
from ..guidance.estimate import Estimate
from ..ops.coefficients import Coefficients
from ..solvers import Table
from .watch import Watch

__all__ = ["Memory", "State"]


class Memory(MutableMapping[str, Tensor]):
    """Tensors kept from row to row under a name (the previous delta, momentum).

    What lies in `state` is copied: it is stepped in place, by the loop or by a guide's caller.

    With `fixed` each name keeps one place on the device, so that a captured graph finds there what
    an earlier one left. Which names hold something is known on the host (`filled`), and so is who
    asked for what (`asked`: name -> whether it was there).
    """

    def __init__(self, fixed: bool = False, state: Tensor | None = None) -> None:
        self._fixed, self.state = fixed, state
        self._places: dict[str, Tensor] = {}
        self.filled: frozenset[str] = frozenset()
        self.asked: dict[str, bool] = {}

    def __getitem__(self, name: str) -> Tensor:
        self.asked.setdefault(name, name in self.filled)
        if name not in self.filled:
            raise KeyError(name)
        return self._places[name]

    def __setitem__(self, name: str, value: Tensor) -> None:
        if not self._fixed:
            moves = self.state is not None and _same_storage(value, self.state)
            self._places[name] = value.clone() if moves else value
        else:
            if name not in self._places:
                with torch.inference_mode(False):
                    self._places[name] = torch.empty_like(value)
            self._places[name].copy_(value)
        self.filled = self.filled | {name}

    def __delitem__(self, name: str) -> None:
        self.filled = self.filled - {name}

    def __iter__(self) -> Iterator[str]:
        return iter(self.filled)

    def __len__(self) -> int:
        return len(self.filled)

    def forget(self) -> None:
        """Hold nothing; the places stay."""
        self.filled = frozenset()

    def places(self) -> list[Tensor]:
        """The tensors behind every name that was ever written."""
        return list(self._places.values())


def _same_storage(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


@dataclass
class State:
    """State of a batch.

    Args:
        x: x_t, (B, *sample_shape); stepped in place.
        coefficients: of every row.
        history: ring of the solver's earlier d, (H, B, *sample_shape), or None.
        watch: looks for NaN and Inf.
        memory: see Memory.
    """

    x: Tensor
    coefficients: Coefficients
    history: Tensor | None
    watch: Watch
    memory: Memory = field(default_factory=Memory)

    def step(self, step: Tensor, estimate: Estimate, noise: Tensor | None, backend: str) -> None:
        """Row `step`, guided by `estimate`: x, history and the watch are updated."""
        ops.guided_step(
            self.x,
            estimate.cond,
            self.coefficients.own if estimate.own else self.coefficients.estimates,
            step,
            ref=estimate.ref,
            term=estimate.term,
            weight=estimate.weight,
            gain=estimate.gain,
            noise=noise,
            history=self.history,
            nonfinite=self.watch.nonfinite,
            out=self.x,
            backend=backend,
        )
        self.watch.look()

    @classmethod
    def new(
        cls,
        x: Tensor,
        rows: Table,
        coefficients: Coefficients,
        captured: bool = False,
    ) -> State:
        """The state before the first row; `captured` fixes every place and never looks."""
        return cls(
            x,
            coefficients,
            x.new_zeros((rows.history, *x.shape)) if rows.history > 1 else None,
            Watch(rows, x, coefficients.w, False if captured else None),
            Memory(captured, x),
        )
