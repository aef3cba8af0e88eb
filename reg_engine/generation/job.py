"""What is to be made: seeds, their labels, and the shards in which they are made.

Seeds are kept as ranges and a shard is worked out from its number: ten million cost what ten do.
A shard holds whole batches, so a batch's composition never depends on who makes it.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import InputError, choice
from ..values import as_int, shown, store
from .formats import FORMATS, Format
from .labels import Rule

__all__ = ["Job", "Shard", "ranges_of"]

IMAGES = 256  # about as many a shard, where nobody says


class Shard(NamedTuple):
    """The images that are made and recorded together."""

    number: int
    seeds: list[int]

    @property
    def name(self) -> str:
        """Of its record, its lease and its files."""
        return f"{self.number:06d}"


@dataclass(frozen=True)
class Job:
    """Images to make.

    Args:
        seeds: ranges of step 1 in [0, 2^63) that do not overlap; image k is a function of seed k.
        labels: gives each seed its label or prompt.
        batch_size: images sampled together, >= 1.
        shard_size: images a shard, a multiple of batch_size; None = whole batches, about 256.
        format: png, webp, jpeg (a file an image, a folder a thousand seeds), npz (one for all, as
            ADM writes it) or tar (one a shard, as WebDataset reads it).
        quality: 1 to 100, of jpeg (None = 95) and webp (None = lossless).

    Raises:
        InputError: one of them is not so.
    """

    seeds: tuple[range, ...]
    labels: Rule
    batch_size: int = 50
    shard_size: int | None = None
    format: str = "png"
    quality: int | None = None

    def __post_init__(self) -> None:
        store(self, seeds=_checked(self.seeds), batch_size=as_int("batch_size", self.batch_size))
        size = self.shard_size
        if size is None:
            size = self.batch_size * max(1, round(IMAGES / self.batch_size))
        size = as_int("shard_size", size)
        if size % self.batch_size:
            problem = f"{size} is no multiple of the batch size {self.batch_size}"
            raise InputError("shard_size", problem, "Give whole batches")
        store(self, shard_size=size, format=choice("format", self.format, FORMATS))
        if self.quality is not None:
            quality = as_int("quality", self.quality)
            if self.format not in ("jpeg", "webp") or quality > 100:
                problem = f"is {quality} for {self.format}"
                raise InputError("quality", problem, "Give 1 to 100, for jpeg or webp")
        ends = itertools.accumulate(len(each) for each in self.seeds)
        object.__setattr__(self, "_ends", list(ends))

    def __len__(self) -> int:
        """Number of images."""
        found: int = self._ends[-1]  # type: ignore[attr-defined]
        return found

    @property
    def shards(self) -> int:
        """Number of shards."""
        assert self.shard_size is not None
        return -(-len(self) // self.shard_size)

    def shard(self, number: int) -> Shard:
        """The shard of this number, 0 <= number < shards: a function of the job and the number."""
        assert self.shard_size is not None
        start = number * self.shard_size
        places = range(start, min(start + self.shard_size, len(self)))
        return Shard(number, [self._seed(place) for place in places])

    def writer(self) -> Format:
        """What makes files of images."""
        return FORMATS[self.format](self.quality)

    def settings(self) -> dict[str, Any]:
        """The same for people, as JSON takes it."""
        return {
            "seeds": ",".join(f"{each.start}-{each.stop - 1}" for each in self.seeds),
            "labels": str(self.labels),
            "batch_size": self.batch_size,
            "shard_size": self.shard_size,
            **self.writer().settings(),
        }

    def _seed(self, place: int) -> int:
        ends: list[int] = self._ends  # type: ignore[attr-defined]
        index = bisect_right(ends, place)
        return self.seeds[index][place - (ends[index - 1] if index else 0)]


def ranges_of(text: str) -> tuple[range, ...]:
    """'0-49999' or '0-99,200,300-399' as ranges; nothing is counted out.

    Raises:
        InputError: it is no list of whole numbers >= 0, or they overlap.
    """
    remedy, found = "Write 0-49999, or 0-99,200-299", []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdecimal() or not (high if dash else low).isdecimal():
            raise InputError("seeds", f"{shown(text)} is no list of numbers", remedy)
        found.append(range(int(low), int(high if dash else low) + 1))
    return _checked(found)


def _checked(seeds: Iterable[range]) -> tuple[range, ...]:
    found = tuple(seeds)
    remedy = "Give ranges of whole numbers from 0 on, such as (range(50000),)"
    if not found or not all(isinstance(each, range) and each.step == 1 for each in found):
        raise InputError("seeds", f"are {shown(found)}", remedy)
    found = tuple(sorted(found, key=lambda each: each.start))
    for each in found:
        if each.start >= each.stop or each.start < 0 or each.stop > 2**63:
            raise InputError("seeds", f"{each.start}-{each.stop - 1} is no range of seeds", remedy)
    for one, other in itertools.pairwise(found):
        if other.start < one.stop:
            problem = f"{one.start}-{one.stop - 1} and {other.start}-{other.stop - 1} overlap"
            raise InputError("seeds", problem, "Name each seed once")
    return found
