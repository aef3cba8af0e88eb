"""The effective scale of a method: how much guidance it does, in the units of CFG's scale.

"Guidance Matters" (Xie et al., ICLR 2026, arXiv 2602.22570): at a step a method moves the estimate
from the reference's by v = guided - ref; its part along delta = cond - ref, as a multiple of delta,
is the scale at which CFG would move as far. The effective scale is the mean over the steps, here
over the evaluations, each weighing the same. Compared at it, most methods lose most of their gain.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..engine import Engine
from ..loop.step import Step
from ..networks.conditioning import expand

__all__ = ["effective_scales", "scales_of"]

NEGLIGIBLE = 100  # roundings of cond: a delta of which too little is left to divide by


def effective_scales(engine: Engine, labels: Tensor, seeds: list[int]) -> Tensor:
    """The effective scale of each sample, (N,) float64: 1 = none, and of CFG its own scale.

    Costs a call, and one evaluation of the reference where something was guided; of an adapter one
    of the model without it, too.

    Args:
        engine: of a class-conditional model whose null label is the reference.
        labels: (N,). seeds: N of them.
    """
    parts: dict[int, list[Tensor]] = {}
    for step in engine.steps(labels, seeds):
        parts.setdefault(step.rows.start, []).append(scales_of(engine, step, labels[step.rows]))
    means = torch.cat([torch.stack(parts[start]).nanmean(0) for start in sorted(parts)])
    return means.nan_to_num(1.0)


def scales_of(engine: Engine, step: Step, labels: Tensor) -> Tensor:
    """|<guided - ref, delta>| / <delta, delta> of a step's samples, (B,) float64 on the CPU.

    1 where cond is taken as it is; NaN where delta is negligible, which says nothing. cond and ref
    are those of the model without its adapter, whose estimate is the guided one.

    Args:
        labels: (B,) of the samples.
    """
    cond, guided, denoiser = step.cond.double(), step.guided.double(), engine.denoiser
    if denoiser.plain is not None:
        denoiser = denoiser.plain.on(denoiser.schedule)
        with torch.no_grad():
            cond = denoiser(step.x, step.t, labels.to(step.x.device)).double()
    elif engine.modes[step.index] == "cond":
        return torch.ones(len(cond), dtype=torch.float64)
    null = expand(denoiser.null_cond, torch.zeros(len(cond), dtype=torch.long, device=cond.device))
    with torch.no_grad():
        ref = denoiser(step.x, step.t, null).double()
    delta = (cond - ref).flatten(1)
    rounding = torch.finfo(step.guided.dtype).eps * cond.flatten(1).norm(dim=1)
    own, least = delta.square().sum(1), (NEGLIGIBLE * rounding).square()
    along = ((guided - ref).flatten(1) * delta).sum(1).abs()
    return torch.where(own > least, along / own, torch.nan).cpu()
