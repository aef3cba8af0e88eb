"""Evaluations of which some are asked for some samples of a batch only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..networks.conditioning import concat, plain, take
from ..networks.point import Point
from ..profiling import ranges
from . import forward

__all__ = ["evaluated", "part_of", "stacked"]


def evaluated(
    point: Point, ask: Tensor, probe: Tensor, moved: Tensor, both: bool
) -> tuple[Tensor, Any, Tensor, Tensor | None]:
    """(cond of all, ref of the samples `ask`, cond at `moved` of the samples `probe`, and, where
    `both`, ref there); in one batch where the reference is the same network."""
    count, null = len(point.x), point.null()
    states, conds = [point.x, moved], [point.cond, take(point.cond, probe)]
    if null is not None:
        states, conds = [*states, point.x[ask]], [*conds, take(null, ask)]
        if both:
            states, conds = [*states, moved], [*conds, take(null, probe)]
    with ranges.cond_ref() if null is not None else ranges.cond():
        found = point.evaluate(point.denoiser, torch.cat(states), concat(conds), block=0)
    cond, ahead, *refs = found.split([len(state) for state in states])
    if null is not None:
        return cond, refs[0], ahead, refs[1] if both else None
    ref = point.ref(cond) if len(ask) == count else _ref_of(point, point.x[ask], ask, cond[ask])
    return cond, ref, ahead, _ref_of(point, moved, probe, ahead) if both else None


def _ref_of(point: Point, x: Tensor, rows: Tensor, cond: Tensor) -> Tensor:
    """Another network's reference of some samples, at states x."""
    if not len(rows):
        return cond
    return part_of(point, rows).at(x).ref(cond)


def part_of(point: Point, rows: Tensor) -> Point:
    """The point of some samples."""
    part = replace(point, x=point.x[rows], cond=take(point.cond, rows))
    part.beside = plain(take(point.reference_cond(), rows))  # autograd may keep it
    return part


def stacked(
    point: Point, ask: Tensor, probe: Tensor, tangent: Tensor
) -> tuple[Tensor, Any, Tensor]:
    """(cond of all, ref of the samples `ask`, K tangent of the samples `probe`), in one batch where
    the reference is the same network; exact, by forward mode."""
    count, null = len(point.x), point.null()
    if not len(probe):
        cond, ref, _, _ = evaluated(point, ask, probe, point.x[probe], False)
        return cond, ref, tangent
    rest = torch.ones(count, dtype=torch.bool, device=point.x.device)
    rest[probe] = False
    order = torch.cat([rest.nonzero()[:, 0], probe])
    parts = [order[: count - len(probe)], probe]
    states, conds = [point.x[rows] for rows in parts], [take(point.cond, rows) for rows in parts]
    if null is not None:
        states, conds = [point.x[ask], *states], [take(null, ask), *conds]
    before = 0 if null is None else len(ask)
    with ranges.cond_ref() if null is not None else ranges.cond():
        primals, (product,) = forward.stacked(
            point, states, conds, (tangent,), before + order.argsort()
        )
    rows = torch.cat(primals[-2:])
    cond = torch.empty_like(rows).index_copy_(0, order, rows)
    if null is not None:
        return cond, primals[0], product
    ref = point.ref(cond) if len(ask) == count else _ref_of(point, point.x[ask], ask, cond[ask])
    return cond, ref, product
