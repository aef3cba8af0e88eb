"""One network evaluation of the loop: how to ask the networks where it stands (standing.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .. import ops
from ..ops.formulas import per_sample
from ..profiling import ranges
from .answers import as_state, conditioned
from .conditioning import Cond, concat
from .denoisers import Denoiser, Place
from .standing import Standing

__all__ = ["Direction", "Point", "Reference"]

WORTH = 2**14  # elements from which on a pass on the CPU costs more than a call


class Reference(Protocol):
    """A reference gives `denoised` at a point; `modules` are frozen during a call.

    One that never looks at `cond` says `needs_cond = False`: at scale 0 cond is then left out. One
    that answers otherwise each time says `redraw = True`: nothing of it is carried to a later row.
    """

    @property
    def modules(self) -> tuple[nn.Module, ...]: ...

    def conditioning(
        self, denoiser: Denoiser, cond: Cond, count: int, device: torch.device
    ) -> Cond:
        """Its own conditioning of all `count` samples, checked before the first is evaluated.

        A batch's rows of it are `point.reference_cond()`; None: it has none.
        """
        ...

    def null(self, point: Point) -> Cond | None:
        """The reference's conditioning, if it is the guided network itself (one batch serves
        both)."""
        ...

    def denoised(self, point: Point, cond: Tensor) -> Tensor:
        """The reference's denoised at the point, (B, *sample_shape)."""
        ...


@dataclass
class Point(Standing):
    """Where the loop stands (Standing), and how to ask the networks there."""

    reference: Reference

    def null(self) -> Cond | None:
        """The reference's conditioning, if it is the guided network itself."""
        return self.reference.null(self)

    def reference_cond(self) -> Cond:
        """The reference's own conditioning of the B samples; None if it has none."""
        if self.beside is None:
            seeds, device = range(len(self.x)), self.x.device
            self.beside = conditioned(self.reference, self.denoiser, self.cond, seeds, device)
        return self.beside

    def evaluate(
        self, denoiser: Denoiser, x: Tensor, cond: Cond, cost: int = 1, block: Any = None
    ) -> Tensor:
        """`denoiser` at this row's time; `cost` evaluations a sample are counted; `block`: see
        Heard.keep."""
        self.counter.forward += cost * x.shape[0]
        place = self.place(denoiser)
        output, beside = denoiser.answer(denoiser.scaled(x, place), place, cond, x)
        self.heard.keep(beside, block, len(self.x))
        return self.estimate(denoiser, x, output, place)

    def estimate(self, denoiser: Denoiser, x: Tensor, output: Tensor, place: Place) -> Tensor:
        """E[x_0 | x] from what the network returned; in one pass where that pays."""
        fused = denoiser is self.denoiser and self.landing is not None and self.step is not None
        if not fused or (x.numel() < WORTH and not x.is_cuda) or ops.differentiates(x, output):
            return denoiser.denoised(x, output, place)
        assert self.landing is not None and self.step is not None
        return ops.guided_step(x, output, self.landing, self.step, backend=self.backend)

    def cond_at(self, x: Tensor, cost: int = 1) -> Tensor:
        """The conditional denoised at state x (B, *sample_shape)."""
        with ranges.cond():
            return self.evaluate(self.denoiser, x, self.cond, cost, block=0)

    def ref(self, cond: Tensor) -> Tensor:
        """The reference's denoised at x_t; `cond` is the conditional one (a classifier needs
        it)."""
        with ranges.ref():
            found = self.reference.denoised(self, cond)
        several = hasattr(self.reference, "gathered")  # one of each was checked
        return found if several else as_state("reference", found, cond)

    def predictions(self, null: Cond) -> tuple[Tensor, Tensor]:
        """What the network itself returns at x_t under `null` and under cond, in one batch."""
        denoiser, place = self.denoiser, self.place(self.denoiser)
        whole = isinstance(place.c_in, float) and place.c_in == 1  # then one copy serves: the batch
        scaled = self.x.to(denoiser.dtype) if whole else denoiser.scaled(self.x, place)
        self.counter.forward += 2 * len(scaled)
        with ranges.cond_ref():
            rows = concat([null, self.cond])
            both, beside = denoiser.answer(torch.cat([scaled, scaled]), place, rows)
            self.heard.keep(beside, 1, len(self.x))
        both = both if both.dtype in ops.FLOATS else both.to(self.x.dtype)  # float8, say
        ref, cond = both.chunk(2)
        return ref, cond

    def stack(self, *states: Tensor) -> tuple[Tensor, ...]:
        """[ref(x_t); cond(x) for x in states], in one batch where the reference is the same
        network."""
        nulls = self.nulls()
        with ranges.cond_ref() if nulls else ranges.cond():
            rows = concat([*nulls, *[self.cond] * len(states)])
            batch = torch.cat([*[self.x] * len(nulls), *states])
            found = self.evaluate(self.denoiser, batch, rows, block=len(nulls))
            outs = found.chunk(len(nulls) + len(states))
        own, conds = outs[: len(nulls)], outs[len(nulls) :]
        return (self.gathered(own, conds[0]), *conds)

    def at(self, x: Tensor) -> Point:
        """The same point at another state x (B, *sample_shape)."""
        return replace(self, x=x)

    def stack_elsewhere(self, *states: Tensor) -> tuple[Tensor, ...]:
        """As `stack`, where x_t is not among the states: a reference that looks at cond gets it."""
        if not getattr(self.reference, "needs_cond", True):
            return self.stack(*states)
        ref, _, *conds = self.stack(self.x, *states)
        return (ref, *conds)

    def stack_pair(self, moved: Tensor) -> tuple[Tensor, ...]:
        """(ref, cond) at x_t and (ref, cond) at the state `moved`, in one batch where the reference
        is the same network."""
        null = self.null()
        if null is None:
            return (*self.stack(self.x), *self.at(moved).stack(moved))
        with ranges.cond_ref():
            rows = concat([null, self.cond] * 2)
            batch = torch.cat([self.x, self.x, moved, moved])
            return self.evaluate(self.denoiser, batch, rows, block=1).chunk(4)

    def nulls(self) -> list[Cond]:
        """Conditionings of the references that are the guided network itself."""
        several = getattr(self.reference, "nulls", None)
        if several is not None:
            found: list[Cond] = several(self)
            return found
        null = self.null()
        return [] if null is None else [null]

    def gathered(self, own: Sequence[Tensor], cond: Tensor) -> Any:
        """The reference's denoised, with those of `_nulls` at hand."""
        several = getattr(self.reference, "gathered", None)
        if several is not None:
            return several(self, own, cond)
        return own[0] if own else self.ref(cond)

    def stack_probe(self, direction: Tensor, length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(ref(x_t), cond(x_t), cond(x_t + h d)) with h = `length` (B,), as `stack`.

        The network's input is written in one pass where the device table is at hand.
        """
        moved = self.x + per_sample(length, self.x) * direction
        nulls, denoiser, table, step = self.nulls(), self.denoiser, self.table, self.step
        if not nulls or table is None or step is None:
            ref, cond, ahead = self.stack(self.x, moved)
            return ref, cond, ahead
        dtype, place, copies = denoiser.dtype, self.place(denoiser), len(nulls) + 1
        scaled = ops.probe(
            self.x, direction, length, table, step, copies, dtype, backend=self.backend
        )
        self.counter.forward += scaled.shape[0]
        with ranges.cond_ref():
            rows = concat([*nulls, self.cond, self.cond])
            output, beside = denoiser.answer(scaled, place, rows)
            self.heard.keep(beside, len(nulls), len(self.x))
            outs = zip([self.x] * copies + [moved], output.chunk(copies + 1), strict=True)
            *own, cond, ahead = (self.estimate(denoiser, x, out, place) for x, out in outs)
        return self.gathered(own, cond), cond, ahead


class Direction(Protocol):
    """Anything that turns (cond, ref) at a point into a direction."""

    def __call__(self, point: Point, cond: Tensor, ref: Tensor) -> Tensor:
        """The direction, (B, *sample_shape), in denoised space."""
        ...
