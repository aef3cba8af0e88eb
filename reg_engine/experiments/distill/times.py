"""What a sample takes under each method, in turn, so that a busy machine delays all alike."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

import torch

from ...engine import Engine

__all__ = ["timed"]


def timed(engines: Mapping[str, Engine], count: int, rounds: int) -> dict[str, dict[str, float]]:
    """Of every engine: median seconds a sample, and the median over rounds of its part of CFG's.

    Args:
        engines: by method; "cfg" is among them.
        count: samples of a round, one batch. rounds: that count; one before them does not.
    """
    labels, seeds = torch.arange(count) % 10, range(count)
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds + 1):
        for name, engine in engines.items():
            seconds[name].append(engine.sample(labels, seeds=seeds).stats.seconds / count)
    kept = {name: each[1:] for name, each in seconds.items()}
    parts = {
        name: [own / cfg for own, cfg in zip(each, kept["cfg"], strict=True)]
        for name, each in kept.items()
    }
    return {n: {"seconds": median(kept[n]), "part": median(parts[n])} for n in kept}
