"""A call's samples, batch by batch: whole, as a stream of batches, or row by row."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from ..checks import as_callback, as_noise, as_seeds
from ..errors import InputError, NumericalError
from ..networks.conditioning import plain, take
from ..networks.frozen import frozen
from .graphs import Graphs
from .progress import Progress
from .run import Batch, Run
from .stats import Output, Stats
from .step import Step

__all__ = ["Batches", "postprocessed"]

Postprocessing = Callable[[Tensor, Any], Tensor]


class Batches(Run):
    """A Run with what its batches share: graphs, compiled blocks, a postprocess, a progress bar."""

    _graphs: Graphs | None
    _uncaptured: str
    _compiled: Callable[[], AbstractContextManager[Any]]
    postprocess: Postprocessing | None
    progress: bool

    def sample(
        self,
        cond: Any,
        seeds: Iterable[int] | None = None,
        noise: Tensor | None = None,
        callback: Callable[[Step], object] | None = None,
    ) -> Output:
        """Sample one image a seed.

        Args:
            cond: labels (N,), a single label, or a dict of the network's own tensors with N rows.
            seeds: N integers in [0, 2^63); None = 0 .. N-1 of the conditioning's rows.
            noise: unit noise (N, *sample_shape) to start from instead of the seeds' own.
            callback: called with the Step of every row; what it raises ends the call. Rows are
                then run one by one: no CUDA graphs, and a wait for the device each.

        Returns:
            Output with samples (N, *sample_shape) and stats.

        Raises:
            InputError: a bad argument; NumericalError: NaN or Inf in a prediction.
        """
        always = callback is not None and self._graphs is not None and self._graphs.always
        callback = as_callback(callback, captures=always)
        estimator, reason = self.chosen
        stats = Stats(solver=self.table.solver, estimator=estimator, reason=reason)
        seeds = as_seeds(seeds, cond)
        samples = torch.empty((len(seeds), *self.denoiser.sample_shape), dtype=self.dtype)
        samples = samples.to(self.device)
        for rows, batch in self._batches(cond, seeds, noise, stats, callback):
            samples[rows] = batch
        return Output(samples, stats, self.denoiser.value_range)

    def stream(
        self,
        cond: Any,
        seeds: Iterable[int] | None = None,
        noise: Tensor | None = None,
        stats: Stats | None = None,
    ) -> Iterator[tuple[slice, Tensor]]:
        """As `sample`, batch by batch: yields (rows, samples) as they are finished.

        Between two batches the network is as the caller has it, for a backward pass of their own,
        say; a stream may be left unfinished. Calls may overlap, in threads too. What must not: a
        network is trained by one thread while it samples in another (its parameters are frozen,
        and it is in evaluation mode, until the last batch that runs is done).
        """
        yield from self._batches(cond, seeds, noise, Stats() if stats is None else stats)

    def steps(
        self,
        cond: Any,
        seeds: Iterable[int] | None = None,
        noise: Tensor | None = None,
        stats: Stats | None = None,
    ) -> Iterator[Step]:
        """As `sample`, row by row: yields the Step of each, batch after batch.

        The last row's `x_next` are the samples, before any postprocess. Between two rows the
        network is as the caller has it; the steps may be left unfinished.
        """
        stats = Stats() if stats is None else stats
        for batch in self._parts(cond, seeds, noise, stats):
            rows = self._rowwise(batch, stats)
            seconds, step = 0.0, None
            while True:
                with frozen(self.modules), self._compiled():  # not while the caller has the turn
                    begun = time.perf_counter()
                    step = next(rows, None)
                    seconds += time.perf_counter() - begun
                if step is None:
                    break
                yield step
            stats.finish_batch(len(batch.seeds), seconds, self.device)

    def _batches(
        self,
        cond: Any,
        seeds: Iterable[int] | None,
        noise: Tensor | None,
        stats: Stats,
        callback: Callable[[Step], object] | None = None,
    ) -> Iterator[tuple[slice, Tensor]]:
        for batch in self._parts(cond, seeds, noise, stats):
            with frozen(self.modules), self._compiled():  # not while the caller has the turn
                begun = time.perf_counter()
                samples = self._batch(batch, stats, callback)
                stats.finish_batch(len(batch.seeds), time.perf_counter() - begun, self.device)
                samples = postprocessed(self.postprocess, samples, batch.conds[0], stats)
            yield batch.rows, samples

    def _parts(
        self, cond: Any, seeds: Iterable[int] | None, noise: Tensor | None, stats: Stats
    ) -> Iterator[Batch]:
        """The call's samples by batch."""
        seeds = as_seeds(seeds, cond)
        rows = self.conditions(cond, len(seeds), seeds)
        noise = as_noise(noise, (len(seeds), *self.denoiser.sample_shape), self.device, self.dtype)
        stats.backend, stats.capture = self.backend, self._uncaptured
        stats.begin(self.device)
        size = self.batch_size or len(seeds)
        with Progress(len(seeds) * len(self.table.rows), self.progress) as bar:
            for start in range(0, len(seeds), size):
                part = slice(start, min(start + size, len(seeds)))
                unit = None if noise is None else noise[part]
                yield Batch(part, plain(take(rows, part)), seeds[part], unit, bar)

    @torch.inference_mode()
    def _batch(
        self, batch: Batch, stats: Stats, callback: Callable[[Step], object] | None
    ) -> Tensor:
        if callback is not None:
            stats.capture = "not captured: a callback looks at every row"
            for step in self._rowwise(batch, stats):
                with torch.inference_mode(False):
                    callback(step)
            return step.x_next
        self.prepare(batch.conds, len(batch.seeds), stats)
        if self._graphs is not None:
            x = self._graphs.run(self, batch, stats)
            if x is not None:
                batch.bar.advance(len(batch.seeds) * len(self.modes))
                return x
        return self.loop(batch, stats)

    @torch.inference_mode()
    def _rowwise(self, batch: Batch, stats: Stats) -> Iterator[Step]:
        self.prepare(batch.conds, len(batch.seeds), stats)
        yield from self.rowwise(batch, stats)


def postprocessed(
    function: Postprocessing | None, samples: Tensor, cond: Any, stats: Stats
) -> Tensor:
    """function(samples, cond), checked, and what it cost added to `stats`; None: the samples.

    Raises:
        InputError: it returned something else than a tensor like `samples`.
        NumericalError: it returned NaN or Inf.
    """
    if function is None:
        return samples
    begun = time.perf_counter()
    result = function(samples.clone(), cond)  # a copy without traces of inference mode
    if not isinstance(result, Tensor) or result.shape != samples.shape:
        found = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise InputError(
            "postprocess",
            f"returned {found} for samples {tuple(samples.shape)}",
            "Return a tensor of the samples' shape",
        )
    bad = ~result.flatten(1).isfinite().all(1)
    if bool(bad.any()):
        rows = bad.nonzero().flatten().tolist()[:8]
        raise NumericalError(f"postprocess gave NaN or Inf in samples {rows} of its batch")
    own = getattr(function, "stats", None)
    nfe = own.nfe if isinstance(own, Stats) else 0.0
    seconds = time.perf_counter() - begun
    stats.add_postprocess(len(samples), nfe, seconds, samples.device)
    return result.detach().to(samples.device, samples.dtype)
