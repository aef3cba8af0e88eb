"""The watch over a run: the first NaN or Inf is found and told where it arose."""

from __future__ import annotations

from torch import Tensor

from ..errors import NumericalError
from ..solvers import Table

__all__ = ["Watch"]

EXTREME = 1e3  # |w| from which on an overflow is guidance's, not the model's


class Watch:
    """Finds the first NaN or Inf of a run: at once on the CPU, after the loop on a device (no
    sync).

    Args:
        table: the rows that are run.
        like: the state (B, *sample_shape).
        weights: w of every row, (N,).
        at_once: look after every evaluation; None = on the CPU.
    """

    def __init__(
        self, table: Table, like: Tensor, weights: Tensor, at_once: bool | None = None
    ) -> None:
        self._table, self._weights = table, weights
        self._at_once = like.device.type == "cpu" if at_once is None else at_once
        self.nonfinite = like.new_zeros((len(table.rows), like.shape[0]))

    def look(self) -> None:
        """After a row: what it was given is in the state, which the guided step has marked."""
        if self._at_once:
            self.finish()

    def finish(self) -> None:
        """Raise NumericalError for the first bad evaluation (the only host sync of a device
        run)."""
        if bool(self.nonfinite.any()):
            bad = self.nonfinite.cpu() != 0
            index = int(bad.any(1).nonzero()[0])
            w = float(self._weights[index])
            raise _numerical(index, self._table.rows[index].t, w, bad[index])


def _numerical(index: int, t: float, w: float, bad: Tensor) -> NumericalError:
    where = f"at evaluation {index} (t = {t:g}) in samples {bad.nonzero().flatten().tolist()[:8]}"
    if abs(w) > EXTREME:
        return NumericalError(
            f"guidance with w = {w:g} gave NaN or Inf {where} of its batch. Lower the scale."
        )
    return NumericalError(
        f"the model gave NaN or Inf {where} of its batch. Check the weights and the network's "
        "dtype (half precision overflows: try float32), and that the schedule is the one it was "
        "trained on."
    )
