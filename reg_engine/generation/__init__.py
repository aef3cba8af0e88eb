"""Many images: seeds in shards, made by any number of processes, written once, checked."""

from __future__ import annotations

from .job import Job, ranges_of
from .labels import Blocks, Cycle, Uniform, lines_of, rule_of
from .making import Finished
from .records import Records
from .sampling import OfLabels, OfPrompts, Sampler
from .verify import Verified, verify
from .worker import generate

__all__ = [
    "Blocks",
    "Cycle",
    "Finished",
    "Job",
    "OfLabels",
    "OfPrompts",
    "Records",
    "Sampler",
    "Uniform",
    "Verified",
    "generate",
    "lines_of",
    "ranges_of",
    "rule_of",
    "verify",
]
