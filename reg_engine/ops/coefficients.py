"""The device table: one row of numbers per evaluation, read by networks and kernels on the device.

Coefficients are solved in float64 on the host (solvers/tables.py); this is their copy in the
state's dtype. A step is a row number, itself a tensor on the device, so that one captured graph
serves every row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..solvers import Row

__all__ = ["COLUMNS", "FIRST_B", "Coefficients", "coefficient_table"]

# w: guided = cond + w T.  skip, out: denoised = skip x + out guided, with guided in the network's
# own prediction (0 and 1 where it is denoised already).  p, q, a, c: the solver's (Row).  c_in: the
# network sees c_in x.  time: what the network is told.  alpha, sigma: the marginal.  limit, keep:
# denoised is clipped to [-limit, limit] (inf: it is not), plus `keep` times what was cut off.  b_0,
# b_1, ... follow.  The kernels and csrc/coefficients.h know these places;
# tests/test_ops_coefficients.py compares them.
COLUMNS = (
    *("w", "skip", "out", "p", "q", "a", "c", "c_in", "time", "alpha", "sigma"),
    *("limit", "keep"),
)
FIRST_B = len(COLUMNS)


class Coefficients(NamedTuple):
    """The device tables of a call's rows, each (N, FIRST_B + H).

    Args:
        estimates: for steps that are given estimates of x_0.
        own: for those that are given the network's own predictions.
        landing: make an estimate of x_0 of a prediction.
        spread: of the rows' noise (Row), (N,).
    """

    estimates: Tensor
    own: Tensor
    landing: Tensor
    spread: Tensor

    @property
    def w(self) -> Tensor:
        """w of every row, (N,)."""
        return self.estimates[:, COLUMNS.index("w")]


def coefficient_table(
    rows: Sequence[Row],
    weights: Sequence[float],
    *,
    predictions: Sequence[tuple[float, float, float, float]] | None = None,
    clips: Sequence[tuple[float, float]] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The table of `rows` on the device.

    Args:
        rows: a solver's rows, N of them.
        weights: w of each row.
        predictions: (c_in, skip, out, time) of each row, for predictions that are not converted to
            denoised before the step; None = (1, 0, 1, the row's t).
        clips: (limit, keep) of each row; None = nothing is clipped.

    Returns:
        (N, FIRST_B + H), H the longest b among the rows; columns as COLUMNS, then b, 0 where a row
        has fewer.
    """
    longest = max(len(row.b) for row in rows)
    own = predictions or [(1.0, 0.0, 1.0, row.t) for row in rows]
    clips = clips or [(math.inf, 0.0)] * len(rows)
    values = []
    for row, w, (c_in, skip, out, time), clip in zip(rows, weights, own, clips, strict=True):
        b = (*row.b, *[0.0] * (longest - len(row.b)))
        solver = (row.p, row.q, row.a, row.c)
        values.append([w, skip, out, *solver, c_in, time, row.alpha, row.sigma, *clip, *b])
    return torch.tensor(values, dtype=torch.float64).to(dtype).to(device)
