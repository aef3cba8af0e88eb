"""Exact golden guidance of a set: its grids, and draws of the targets that they aim at."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import NumericalError
from ...oracles import GaussianMixture, Shape, TiltedGrid

CFG, WORSE = "cfg", "worse"  # what is divided by: p(x_0), or the blurred p(x_0|y)

NODES = 181  # an axis, 0.3 bandwidths apart
MARGIN = 8.0  # deviations beyond the outermost component; points x_t should lie inside
CHUNK = 1024  # draws that are proposed at once
SLACK = 0.1  # nats, of the largest log ratio, for what lies between nodes
PATIENCE = 1 << 14  # draws before the share that is kept is judged


def grids_of(shape: Shape) -> dict[tuple[str, int], TiltedGrid]:
    """By (kind, label): CFG's ratio p(x_0|y)/p(x_0), and WORSE's p(x_0|y)/p_blurred(x_0|y)."""
    found = {}
    for label in range(shape.mixture.num_classes):
        found[CFG, label] = _grid(shape.mixture, label)
        found[WORSE, label] = _grid(shape.against_blurred(label), 0)
    return found


def _grid(mixture: GaussianMixture, label: int) -> TiltedGrid:
    """On a square around both classes: with little noise, E[x_0|x_t,y] of an x_t far from the class
    lies near x_t, not near the class."""
    own = mixture.log_weights[0].isfinite()
    side = float(mixture.means.abs().max()) + MARGIN * float(mixture.variances[own].max()) ** 0.5
    corner = torch.full((2,), side, dtype=torch.float64)
    return TiltedGrid(mixture, label, nodes=NODES, box=(-corner, corner))


def target_draws(grid: TiltedGrid, w: float, count: int, generator: torch.Generator) -> Tensor:
    """Exact draws of p(x_0|y) R_0(x_0), (count, 2) float64, by rejection from p(x_0|y).

    The bound of the ratio is its largest value at a node and some slack; a draw above it is an
    error, not a bias.

    Raises:
        NumericalError: a draw above the bound, or less than one draw in a thousand kept.
    """
    bound = float(grid.tabulated(NODES).log_ratio.max()) + SLACK
    kept: list[Tensor] = []
    proposed = found = 0
    while found < count:
        x = grid.mixture.sample(max(count, CHUNK), grid.label, generator)
        excess = grid.log_ratio(x) - bound
        if float(excess.max()) > 0:
            raise NumericalError("golden guidance: the quadrature grid missed a maximum of R_0")
        uniform = torch.rand(len(x), dtype=torch.float64, generator=generator)
        kept.append(x[uniform.log() < w * excess])
        proposed, found = proposed + len(x), found + len(kept[-1])
        if proposed > PATIENCE and 1000 * found < proposed:
            raise NumericalError(
                f"the target at w = {w:g} keeps {found} of {proposed} draws: lower w"
            )
    return torch.cat(kept)[:count]
