"""Sampling of methods over their scales, resumable, and what is measured of each point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..engine import Engine
from ..networks.denoisers import Denoiser
from ..resume import digest, engine_key, run_resumable
from ..storage.shards import Shards
from .bench import Bench
from .effective import effective_scales
from .fronts import Measured
from .methods import Method, MethodPoint

__all__ = ["PROBED", "Sampler"]

PROBED = 50  # samples that an effective scale is measured on, at most


class Sampler:
    """Samples points and measures them; every point has the same labels and seeds.

    Args:
        denoiser: a class-conditional model.
        shards: where finished batches are kept.
        bench: measures; its labels are those that are sampled, of the seeds 0, 1, ...
        choices: as for Engine (solver, steps, batch_size, device, progress, ...).
    """

    def __init__(
        self,
        denoiser: Denoiser,
        shards: Shards,
        bench: Bench,
        choices: Mapping[str, Any],
    ) -> None:
        self.denoiser, self.shards, self.bench = denoiser, shards, bench
        self.labels, self.seeds = bench.labels, list(range(len(bench.labels)))
        self.choices = dict(choices)
        self._done: dict[str, Measured] = {}

    def engines(self, methods: Sequence[Method]) -> dict[MethodPoint, Engine]:
        """The engine of every point, method by method in the order of the scales.

        Raises:
            InputError: a choice that an Engine refuses; the adapter of another model.
        """
        return {
            MethodPoint(method, scale): self._engine(method, scale)
            for method in methods
            for scale in sorted(set(method.scales))
        }

    def _engine(self, method: Method, scale: float) -> Engine:
        choices = {**self.choices, "plan": method.plan}
        choices["refine"] = method.refine if scale != 1 else None
        if method.adapter is not None:
            return Engine(self.denoiser.with_adapter(method.adapter), scale=scale, **choices)
        return Engine(self.denoiser, guidance=method.guidance(scale), **choices)

    def measure(self, point: MethodPoint, engine: Engine) -> Measured:
        """A point's numbers. At scale 1 nothing guides: that is one point of all methods."""
        name = point.file
        if name not in self._done:
            samples, stats = run_resumable(engine, self.labels, self.seeds, self.shards, name)
            cost = stats.as_dict()
            found = self.bench(point, samples, cost)
            kept = ("seconds", "estimator", "reason")
            row = found.row | {key: cost[key] for key in kept}
            row["effective_scale"] = float(self._effective(name, engine).mean())
            self._done[name] = replace(found, row=row)
        found = self._done[name]
        return replace(found, point=point, row=found.row | point.row)

    def _effective(self, name: str, engine: Engine) -> Tensor:
        """Effective scales of the first samples, kept like a batch."""
        labels, seeds = self.labels[:PROBED], self.seeds[:PROBED]
        place, key = f"{name}-effective", digest(engine_key(engine), labels, seeds)
        kept = self.shards.load(place, (len(seeds),))
        if kept is not None and kept[1].get("key") == key:
            return kept[0]
        found = effective_scales(engine, labels, seeds)
        self.shards.store(place, found, {"key": key})
        return found
