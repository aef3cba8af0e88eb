"""An estimator's derivative against differences of the network, the first time that they meet.

A part of a network can lose its derivative without a word: a block under no_grad, an op whose rule
gives zero, a compiled block. The rest keeps its own, so nothing looks missing. Here K d by autograd
is compared with central differences over two steps. Where these disagree with each other (kinks,
rounding, a stochastic network) they cannot tell, and their distance widens what is let pass.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..errors import EstimatorError, out_of_memory
from ..networks.point import Point
from .base import Rectifier
from .forward import JVP, DiagonalJVP, product
from .precision import autocast_dtype, precision_of, rms, wide
from .reverse import Reverse

__all__ = ["once", "verified"]

# By what the network computes in: the relative step, and the relative error that rounding explains.
STEPS = {torch.float64: (1e-5, 0.003), torch.float32: (1e-3, 0.01), torch.float16: (0.05, 0.05)}
COARSE = (0.2, 0.1)
SPREADS = 4.0  # distances between the two differences that are let pass
VAGUE = 0.25  # a relative distance from which on differences say nothing
POINTS = 3  # where an error must show
COTANGENTS = 2  # random ones: their mean shows an error at a third of its size or more, 19 in 20

OFF = "its derivative is"
_LOCK = threading.Lock()
_KNOWN: WeakKeyDictionary[Any, dict[Hashable, Any]] = WeakKeyDictionary()


def verified(rectifier: Rectifier, point: Point, batch_size: int = 1) -> None:
    """Compare the estimator's derivative at the point, of few samples, with differences; once a
    network and configuration. Estimators that do not differentiate pass.

    Args:
        batch_size: samples that a recorded pass will hold; they decide whether blocks are
            recomputed.

    Raises:
        EstimatorError: the derivative is wrong or cannot be taken.
    """
    derives = isinstance(rectifier, (JVP, DiagonalJVP, Reverse))
    if not derives and getattr(rectifier, "probe", None) != "jvp":
        return
    kind: tuple[Hashable, ...] = ("forward",)
    if isinstance(rectifier, Reverse):
        kind = ("reverse", rectifier.memory_budget, rectifier.memory_budget and batch_size)
    problem = once(point, kind, lambda: _problem(rectifier, point, batch_size))
    if problem:
        unless = ", or check=False" if problem.startswith(OFF) else ""  # else it fails all the same
        raise EstimatorError(
            f"'{rectifier.name}' cannot serve this network: {problem}. Use rectify='fd_batched', "
            f"which needs none{unless}."
        )


def once(point: Point, kind: tuple[Hashable, ...], make: Callable[[], Any]) -> Any:
    """`make()`, or what it gave before for the same network seen in the same way."""
    key = (*kind, *_configuration(point))
    try:
        with _LOCK:
            known = _KNOWN.setdefault(point.denoiser.net, {})
    except TypeError:  # neither hashable nor weakly referable: asked anew each time
        return make()
    if key not in known:
        known[key] = make()  # two threads may both do it, and find the same
    return known[key]


def _configuration(point: Point) -> tuple[Hashable, ...]:
    denoiser, x = point.denoiser, point.x
    numbers = (
        denoiser.prediction,
        denoiser.input_scaling,
        denoiser.dtype,
        autocast_dtype(x.device),
    )
    parts = (part for module in denoiser.modules for part in module.modules())
    code = hash(tuple((type(part), *_calls(part)) for part in parts))
    return (*numbers, code, x.dtype, x.device, x.shape, autocast_dtype(x.device))


def _calls(module: torch.nn.Module) -> tuple[int, int]:
    """What was put in the place of the class's forward."""
    forward = module.__dict__.get("forward")
    forward = getattr(forward, "original", forward)
    compiled = module.__dict__.get("_compiled_call_impl")
    return id(getattr(forward, "__func__", forward)), id(compiled)


def _problem(rectifier: Rectifier, point: Point, batch_size: int) -> str:
    """What is wrong with the derivative; "" if nothing is.

    A kink next to a point misleads both differences alike, so an error must show at every point.
    """
    generator, least = torch.Generator().manual_seed(0), math.inf
    for _ in range(POINTS):
        with torch.no_grad():
            d = _direction(point, generator)
            step, slack = STEPS.get(precision_of(point.denoiser, point.x), COARSE)
            wide, narrow = (_difference(point, d, step * share) for share in (1.0, 0.5))
        exact, spread = (wide + narrow) / 2, float((wide - narrow).norm())
        size = float(exact.norm())
        try:
            if isinstance(rectifier, Reverse):
                error = _reverse_error(rectifier, point, batch_size, d, exact, generator)
            else:
                error = _forward_error(point, d, exact)
        except RuntimeError as failure:
            if out_of_memory(failure):
                raise
            return _reason(failure)
        # Comparisons with NaN are false: the run itself names what is not finite.
        if not (spread < VAGUE * size and error > slack * size + SPREADS * spread):
            return ""
        least = min(least, error / size)
        point = replace(point, x=rms(point.x).to(d) * _noise(point, generator))
    return (
        f"{OFF} {least:.0%} off a finite difference: a part is lost or replaced (under "
        "no_grad, detached, compiled, or an op without a rule)"
    )


def _reason(failure: RuntimeError) -> str:
    """What a failure says, without the remedy and the name that `verified` gives."""
    text = (str(failure).splitlines() or [repr(failure)])[0].partition(" Use rectify=")[0]
    return text.rpartition(" cannot serve this network: ")[2].rstrip(".")


def _noise(point: Point, generator: torch.Generator) -> Tensor:
    return torch.randn(point.x.shape, generator=generator).to(point.x)


def _direction(point: Point, generator: torch.Generator) -> Tensor:
    """Where the network answers (its own estimate) and everywhere (noise), in equal parts."""
    answer = _alone(lambda: point.cond_at(point.x))
    return _noise(point, generator) + answer / rms(answer).clamp_min(1e-30).to(answer.dtype)


def _difference(point: Point, d: Tensor, step: float) -> Tensor:
    """K d by a central difference over the relative `step`."""
    h = step * rms(point.x) / rms(d)
    move = h.to(d) * d
    ahead, back = (
        wide(_alone(lambda x=x: point.cond_at(x)))  # type: ignore[misc]
        for x in (point.x + move, point.x - move)
    )
    return point.alpha * (ahead - back) / (2 * h)


def _forward_error(point: Point, d: Tensor, exact: Tensor) -> float:
    """|K d - exact|."""
    return float((wide(_alone(lambda: product(point, d)[1])) - exact).norm())


def _reverse_error(
    rectifier: Reverse,
    point: Point,
    batch_size: int,
    d: Tensor,
    exact: Tensor,
    generator: torch.Generator,
) -> float:
    """|K d - exact| by <v, exact> - <K^T v, d> over random signs v, whose mean square it is."""

    def pulled(signs: Tensor) -> Tensor:
        with rectifier.recorded(point, batch_size) as (_, pullback):
            return pullback(signs)

    total = 0.0
    for _ in range(COTANGENTS):
        signs = (2.0 * torch.randint(0, 2, d.shape, generator=generator) - 1).to(d)
        gradient = _alone(lambda v=signs: pulled(v))  # type: ignore[misc]
        gap = (wide(signs) * exact).sum() - (wide(gradient) * wide(d)).sum()
        total += float(gap) ** 2
    return math.sqrt(total / COTANGENTS)


def _alone(evaluate: Callable[[], Tensor]) -> Tensor:
    """One evaluation that leaves the random generators as they were: a stochastic network is then
    the same function each time."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        return evaluate()
