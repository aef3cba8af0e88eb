"""Reverse mode: one recorded conditional pass, one backward pass (or n, for the probes of
`diagonal`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..errors import EstimatorError, out_of_memory
from ..networks.frozen import SavedBytes, checkpointed, recording
from ..networks.point import Direction, Point
from ..values import as_budget, as_int, store

__all__ = ["VJP", "Diagonal", "Paper", "Reverse", "saved_bytes_per_sample"]

Pullback = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Reverse:
    """Options that every reverse-mode estimator shares.

    Args:
        memory_budget: bytes that the recorded activations may take; above it every block of the
            network is recomputed in the backward pass (one more forward pass). None = never
            recompute.
    """

    memory_budget: float | None = None
    lagged = False
    _measured: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        store(self, memory_budget=as_budget(self.memory_budget))

    @contextmanager
    def recorded(
        self, point: Point, batch_size: int | None = None
    ) -> Iterator[tuple[Tensor, Pullback]]:
        """Yield cond (detached) and cotangent -> K^T cotangent. Only the conditional rows are
        recorded.

        Args:
            batch_size: samples that decide on recomputing; None = those of the point.

        Raises:
            EstimatorError: the network cannot be differentiated backward.
        """
        with self._blocks(point, batch_size), recording(point.x) as x:
            cond = _recorded(point, x)

            def pullback(cotangent: Tensor, last: bool = True) -> Tensor:
                point.counter.backward += x.shape[0]
                return point.alpha * _gradient(cond, x, cotangent, not last)

            yield cond.detach(), pullback

    def _blocks(self, point: Point, batch_size: int | None = None) -> AbstractContextManager[None]:
        if self.memory_budget is None:
            return nullcontext()
        if "bytes" not in self._measured:
            self._measured["bytes"] = saved_bytes_per_sample(point)
        samples = point.x.shape[0] if batch_size is None else batch_size
        if self._measured["bytes"] * samples <= self.memory_budget:
            return nullcontext()
        return _checkpointed(point.denoiser.modules)


def _recorded(point: Point, x: Tensor) -> Tensor:
    try:
        return point.cond_at(x)
    except RuntimeError as error:
        if "Inference tensors" not in str(error):
            raise
        raise EstimatorError(  # frozen.py deals with weights; other tensors cannot be found
            "the network holds tensors made inside torch.inference_mode, which autograd cannot "
            "record. Load the model outside, or use rectify='jvp', 'fd_batched' or 'fd'."
        ) from error


def _gradient(cond: Tensor, x: Tensor, cotangent: Tensor, keep: bool) -> Tensor:
    try:
        with torch.inference_mode(False):
            (gradient,) = torch.autograd.grad(cond, x, cotangent.clone(), retain_graph=keep)
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        raise EstimatorError(
            f"the network cannot be differentiated backward: {str(error).splitlines()[0]} Use "
            "rectify='fd_batched' or 'fd'."
        ) from error
    return gradient


@contextmanager
def _checkpointed(modules: tuple[nn.Module, ...]) -> Iterator[None]:
    with checkpointed(modules) as blocks:
        if not blocks:
            raise EstimatorError(
                "memory_budget is too small for a recorded pass, and the network has no "
                "nn.ModuleList "
                "of blocks to recompute. Use rectify='fd' or 'jvp', or a smaller batch_size."
            )
        yield


def saved_bytes_per_sample(point: Point) -> float:
    """Bytes that a recorded conditional pass keeps for one sample, measured on one (not counted
    as nfe)."""
    from ..networks.conditioning import take

    one = slice(0, 1)
    with SavedBytes(point.denoiser.modules) as saved, recording(point.x[one]) as x:
        point.denoiser.evaluate(x, point.place(point.denoiser), take(point.cond, one))
    return float(saved.total)


@dataclass(frozen=True)
class Paper(Reverse):
    """`paper`: (column sums of K) * delta, Eq. 21 of REG: one vector-Jacobian product with ones."""

    name = "paper"

    def __call__(self, point: Point, direction: Direction) -> tuple[Tensor, Tensor, Tensor]:
        with self.recorded(point) as (cond, pullback):
            factor = pullback(torch.ones_like(cond))
        delta = direction(point, cond, point.ref(cond))
        return cond, factor * delta, delta


@dataclass(frozen=True)
class VJP(Reverse):
    """`vjp`: K^T delta exactly, Eq. 22 of REG without its diagonal assumption."""

    name = "vjp"

    def __call__(self, point: Point, direction: Direction) -> tuple[Tensor, Tensor, Tensor]:
        with self.recorded(point) as (cond, pullback):
            delta = direction(point, cond, point.ref(cond))
            return cond, pullback(delta), delta


@dataclass(frozen=True)
class Diagonal(Reverse):
    """`diagonal`: diag(K) * delta, Hutchinson's estimate mean_i z_i * (K^T z_i), z_i = +-1.

    Args:
        probes: number n >= 1 of backward passes; each sample has its own probes, from its seed.
    """

    probes: int = 1
    name = "diagonal"

    def __post_init__(self) -> None:
        super().__post_init__()
        store(self, probes=as_int("probes", self.probes))

    def __call__(self, point: Point, direction: Direction) -> tuple[Tensor, Tensor, Tensor]:
        assert point.probes is not None
        with self.recorded(point) as (cond, pullback):
            total = torch.zeros_like(cond)
            for index in range(self.probes):
                signs = point.probes.signs(cond)
                total += signs * pullback(signs, index == self.probes - 1)  # type: ignore[call-arg]
        delta = direction(point, cond, point.ref(cond))
        return cond, total / self.probes * delta, delta
