"""One call for a whole set of images: features, reference, scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ..errors import InputError, choice
from .extract import Extraction, extract, extract_batches
from .images import Tensors
from .network import Network
from .reference import image_reference
from .report import fitting, gather, needs, report
from .scores import METRICS, Conventions
from .source import Source
from .statistics import Statistics

__all__ = ["Scored", "check_metrics", "score"]


class Scored(NamedTuple):
    """The result, and the images' own statistics, which may be the reference of others."""

    result: dict[str, Any]
    statistics: Statistics


def check_metrics(metrics: Sequence[str], statistics: bool, reference: bool) -> None:
    """Refuse scores that lack what they are held against, before any work is done.

    Raises:
        InputError: an unknown score, one without its reference.
    """
    for metric in metrics:
        choice("metrics", metric, METRICS)
        if metric in ("kid", "pr") and not reference:
            remedy = "Give --reference PATH with images"
            raise InputError("reference", f"is missing for {metric}", remedy)
        if metric == "fid" and not (statistics or reference):
            remedy = "Give --stats FILE or --reference PATH"
            raise InputError("stats", "is missing for fid", remedy)


def score(
    images: Source | Tensor | Iterable[Tensor],
    network: Network,
    metrics: Sequence[str] = ("fid",),
    conventions: Conventions | None = None,
    *,
    statistics: Statistics | None = None,
    reference: Source | None = None,
    extraction: Extraction | None = None,
    cache: Path | None = None,
) -> Scored:
    """Score images in a network's features.

    Args:
        images: a source; images (N, 1 or 3, H, W) in memory, uint8 or floats in [-1, 1]; or such
            batches of a live model, one after the other.
        network: makes the features.
        metrics: of `fid`, `is`, `kid`, `pr`; none: the statistics alone.
        conventions: splits, subsets, neighbours, resamples, seed.
        statistics: of the reference, for fid.
        reference: its images, for kid and pr, and for fid where there are no statistics.
        extraction: batch size, threads, where blocks are kept.
        cache: a folder that keeps statistics of the reference's images; None: none.

    Raises:
        InputError: a score that lacks its reference; statistics of another network; fewer than two
            images; what sources and networks raise.
    """
    how, through = conventions or Conventions(), extraction or Extraction()
    check_metrics(metrics, statistics is not None, reference is not None)
    if statistics is not None:
        statistics.check(network)
    vectors, logits = needs(metrics, how)
    source = Tensors(images) if isinstance(images, Tensor) else images
    name, key, held = "batches", "", None
    fits = fitting(network, metrics, statistics)
    if isinstance(source, Iterable):
        blocks = extract_batches(source, lambda part, _: fits(part))
    else:
        name, key = source.name, source.fingerprint()
        blocks = extract(source, lambda part, _: fits(part), through)
    paired = bool({"kid", "pr"} & set(metrics))
    if reference is not None and (paired or (statistics is None and "fid" in metrics)):
        found = image_reference(reference, network, through, vectors=paired, cache=cache)
        statistics, held = statistics or found.statistics, found.vectors
    gathered = gather(blocks, vectors, logits)
    result = report(gathered, network, metrics, how, statistics, held, name)
    return Scored(result, gathered.statistics(network, name, key))
