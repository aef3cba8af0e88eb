"""A trained flow that moves samples to near real data, as a function of samples."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from ..checks import as_batch_size
from ..engine import Engine
from ..errors import InputError, NumericalError, choice
from ..guidance.weights import as_scale
from ..loop.stats import Stats
from ..networks.conditioning import Cond, as_cond, concat, expand, take
from ..networks.denoisers import Denoiser
from ..networks.frozen import frozen
from ..schedules import Flow
from ..schedules.base import check_number, positive_int
from ..solvers import SOLVERS, table

__all__ = ["ADAPTIVE", "Postprocess"]

ADAPTIVE = "dopri5"  # of torchdiffeq; every other solver is one of ours


class Postprocess:
    """Samples -> samples nearer to real data, by the flow of arXiv 2503.10638 (Eqs. 11-12).

    Called as `flow(samples, cond)`; `reg_engine.sample(..., postprocess=flow)` calls it for each
    batch. `flow.stats` tells what the last call cost.

    Args:
        denoiser: of prediction "flow" on schedules.Flow; t = 1 is the generated sample. With
            num_classes it is conditional and needs labels; without, its network gets zeros.
        solver: "dopri5" (adaptive, torchdiffeq), or a name in SOLVERS that adds no noise.
        steps: of a solver in SOLVERS.
        scale: guidance scale of the flow itself, 1 = none; needs the denoiser's null label.
        rtol, atol: tolerances of dopri5, which holds them over a batch: its result depends on
            batch_size as far as they allow. Fixed steps do so by rounding alone.
        batch_size: samples at a time; None = all.

    Raises:
        InputError: another kind of denoiser; an unknown or stochastic solver; a number out of
            range; dopri5 without torchdiffeq.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        solver: str = ADAPTIVE,
        steps: int = 32,
        scale: float = 1.0,
        *,
        rtol: float = 1e-5,
        atol: float = 1e-5,
        batch_size: int | None = None,
    ) -> None:
        if not isinstance(denoiser, Denoiser) or denoiser.prediction != "flow":
            found = getattr(denoiser, "prediction", type(denoiser).__name__)
            raise InputError("denoiser", f"is a {found}", 'Give Denoiser(net, "flow", Flow(), ...)')
        if not isinstance(denoiser.schedule, Flow):
            name = type(denoiser.schedule).__name__
            raise InputError("denoiser", f"is on {name}", "Train it on schedules.Flow()")
        if choice("solver", solver, (ADAPTIVE, *SOLVERS)) != ADAPTIVE:
            rows = table(solver, denoiser.schedule, steps).rows  # refuses what cannot start at 1
            if any(row.c for row in rows):
                raise InputError("solver", f"{solver!r} adds noise", "Use dopri5 or flow_heun")
        scale = as_scale("scale", scale)
        if scale != 1 and denoiser.null_cond is None:
            raise InputError("scale", f"is {scale}", "Train with labels to guide, or leave it at 1")
        self.rtol, self.atol = check_number("rtol", rtol, 0, 1), check_number("atol", atol, 0, 1)
        if solver == ADAPTIVE:
            _odeint()
        self.denoiser, self.solver, self.scale = denoiser, solver, scale
        self.steps, self.batch_size = positive_int("steps", steps), as_batch_size(batch_size)
        self.stats = Stats(solver=solver)
        self._engines: dict[tuple[torch.device, torch.dtype], Engine] = {}

    def __call__(self, samples: Tensor, cond: Any = None) -> Tensor:
        """Move samples along the flow.

        Args:
            samples: (N, *sample_shape), floating.
            cond: labels (N,), or one for all, of a conditional flow; not looked at otherwise.

        Returns:
            (N, *sample_shape), of the samples' dtype and device.

        Raises:
            InputError: samples of another shape; labels missing or out of range.
            NumericalError: NaN or Inf on the way.
        """
        shape = self.denoiser.sample_shape
        if not isinstance(samples, Tensor) or samples.shape[1:] != shape or not len(samples):
            given = tuple(samples.shape) if isinstance(samples, Tensor) else type(samples).__name__
            raise InputError("samples", f"are {given}", f"Give (N, {', '.join(map(str, shape))})")
        if not samples.is_floating_point() or not bool(samples.isfinite().all()):
            found = "have NaN or Inf" if samples.is_floating_point() else f"are {samples.dtype}"
            raise InputError("samples", found, "Give finite floating point values")
        device = self.denoiser.device or samples.device
        dtype = torch.float64 if samples.dtype == torch.float64 else torch.float32
        x, rows = samples.detach().to(device, dtype), self._cond(cond, len(samples), device)
        run = self._adaptive if self.solver == ADAPTIVE else self._fixed
        moved, self.stats = run(x, rows)
        return moved.to(samples.device, samples.dtype)

    def _cond(self, cond: Any, count: int, device: torch.device) -> Cond:
        classes = self.denoiser.num_classes
        if classes is None:
            return torch.zeros(count, dtype=torch.long, device=device)
        if cond is None:
            raise InputError("cond", "is missing", f"Give labels in [0, {classes})")
        return as_cond(cond, count, classes, self.denoiser.null_cond, device)

    def _fixed(self, x: Tensor, cond: Cond) -> tuple[Tensor, Stats]:
        place = x.device, x.dtype
        if place not in self._engines:  # kept: an engine captures its steps once
            self._engines[place] = Engine(
                self.denoiser,
                scale=self.scale,
                rectify=None,
                solver=self.solver,
                steps=self.steps,
                batch_size=self.batch_size,
                device=x.device,
                dtype=x.dtype,
                progress=False,
            )
        out = self._engines[place].sample(cond, seeds=range(len(x)), noise=x)
        return out.samples, out.stats

    @torch.no_grad()
    def _adaptive(self, x: Tensor, cond: Cond) -> tuple[Tensor, Stats]:
        begun, size, evaluations = time.perf_counter(), self.batch_size or len(x), 0
        ends = torch.tensor([1.0, 0.0], dtype=x.dtype, device=x.device)
        parts = []
        null = None if self.scale == 1 else expand(self.denoiser.null_cond, cond)
        tolerances = {"rtol": self.rtol, "atol": self.atol}
        with frozen(self.denoiser.modules):
            for start in range(0, len(x), size):
                rows = slice(start, start + size)
                velocity = _Velocity(self.denoiser, *take((cond, null), rows), self.scale)
                try:
                    path = _odeint()(velocity, x[rows], ends, method=ADAPTIVE, **tolerances)
                except AssertionError as error:  # torchdiffeq's word for a step that vanished
                    raise NumericalError(
                        f"dopri5 cannot hold rtol {self.rtol:g}, atol {self.atol:g} ({error}); "
                        "raise them, or use solver='flow_heun'"
                    ) from error
                parts.append(path[-1])
                evaluations += velocity.evaluations * len(path[-1])
        moved = torch.cat(parts)
        seconds = time.perf_counter() - begun
        nfe = evaluations / len(x)
        return moved, Stats(seconds=seconds, samples=len(x), nfe=nfe, solver=ADAPTIVE)


class _Velocity:
    """dx/dt of the flow, guided; counts network evaluations a sample."""

    def __init__(self, denoiser: Denoiser, cond: Cond, null: Cond, scale: float) -> None:
        self.denoiser, self.cond, self.scale = denoiser, cond, scale
        self.evaluations = 0
        self.stacked = None if scale == 1 else concat([null, cond])

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        if not math.isfinite(float(t)):  # the step follows from the velocities
            raise NumericalError("the flow's network gave NaN or Inf: check its weights")
        place = self.denoiser.at(min(max(float(t), 0.0), 1.0))  # rounding may pass the ends
        own = self.denoiser.dtype or x.dtype
        if self.stacked is None:
            self.evaluations += 1
            return self.denoiser.output((place.c_in * x).to(own), place, self.cond).to(x.dtype)
        self.evaluations += 2
        twice = (place.c_in * torch.cat([x, x])).to(own)
        both = self.denoiser.output(twice, place, self.stacked).to(x.dtype)
        ref, cond = both.chunk(2)
        return cond + (self.scale - 1) * (cond - ref)


def _odeint() -> Any:
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise InputError(
            "solver",
            f"dopri5 needs torchdiffeq ({error})",
            "Run `pip install 'reg-engine[postprocess]'`, or use solver='flow_heun'",
        ) from error
    return odeint
