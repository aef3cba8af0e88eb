"""Sampling that goes on where it was stopped: finished batches are kept with all they depend on."""

from __future__ import annotations

import torch
from torch import Tensor

from .engine import Engine
from .errors import InputError
from .loop.stats import Stats
from .networks.denoisers import Denoiser
from .storage.digest import digest, parts
from .storage.readers import refusing
from .storage.shards import Shards
from .version import __version__

__all__ = ["digest", "engine_key", "run_resumable"]


@parts.register
def _denoiser(value: Denoiser) -> object:
    """The network and how it is asked, without what a Denoiser keeps for speed."""
    return (
        value.net,
        [module for module in value.modules if module is not value.net],
        value.prediction,
        value.schedule,
        value.sample_shape,
        value.null_cond,
        value.sigma_data,
        value.num_classes,
        value.input_scaling,
        (value.extra, value.time, value.learned_variance),
    )


def engine_key(engine: Engine) -> str:
    """A digest of everything, beside labels and seeds, that an engine's samples depend on: the
    networks' weights, every number of schedule, solver, guidance and plan, the package's version
    and torch's."""
    return digest(
        __version__,
        torch.__version__,
        engine.denoiser,
        [tuple(engine.denoiser.at(row.t)) for row in engine.table.rows],
        engine.guidance,
        engine.modes,
        engine.weights,
        engine.table,
        engine.postprocess,
        (engine.device.type, engine.dtype, engine.backend, engine.choices.memory_budget),
    )


def run_resumable(
    engine: Engine, labels: Tensor, seeds: list[int], shards: Shards, name: str
) -> tuple[Tensor, Stats]:
    """As Engine.sample, but batches that are on disk are read, and new ones written as they finish.

    Args:
        engine: its batch_size is that of the kept batches.
        labels: (N,). seeds: N of them.
        shards: where batches are kept.
        name: of this sampling among others in `shards`.

    Returns:
        Samples (N, *sample_shape) in float32, and what they cost.

    Raises:
        InputError: a kept batch was made with other settings; labels and seeds that do not match.
    """
    if len(labels) != len(seeds):
        raise InputError("seeds", f"{len(seeds)} for {len(labels)} samples", "Give one a sample")
    size = engine.batch_size or len(seeds)
    samples = torch.empty((len(seeds), *engine.denoiser.sample_shape))
    stats, key = Stats(), engine_key(engine)
    for number, start in enumerate(range(0, len(seeds), size)):
        rows, place = slice(start, start + size), f"{name}-{number:05d}"
        batch_key = digest(key, labels[rows], seeds[rows])
        kept = shards.load(place, (len(seeds[rows]), *engine.denoiser.sample_shape))
        if kept is None:
            out = engine.sample(labels[rows], seeds[rows])
            kept = out.samples.float().cpu(), {"key": batch_key, "stats": out.stats.as_dict()}
            shards.store(place, *kept)
        elif kept[1].get("key") != batch_key:
            raise shards.mixed()
        samples[rows] = kept[0]
        with refusing("out", f"{shards.folder} holds a damaged batch", "Delete that folder"):
            stats.merge(kept[1]["stats"])
    return samples, stats
