"""Images through a network, block by block: read ahead by threads, kept on disk, in one order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError, choice
from ..loop.progress import Progress
from ..storage.shards import Shards
from ..values import as_int
from .images import Tensors
from .network import Vectors
from .source import Part, Source

__all__ = ["BLOCK", "ON_ERROR", "Block", "Extraction", "extract", "extract_batches"]

BLOCK = 1024  # images that are kept together; sums do not depend on batches, workers or stops
ON_ERROR = ("stop", "skip")
SHOWN = 5  # names in a message

Ask = Callable[[Tensor, Sequence[int]], Vectors]


class Block(NamedTuple):
    """What a network made of consecutive images."""

    features: Tensor  # (n, F) float32 or float64
    logits: Tensor | None  # (n, L)
    unreadable: tuple[str, ...] = ()  # images that are left out: name and reason


@dataclass(frozen=True)
class Extraction:
    """How images go through a network.

    Args:
        batch_size: images of one call of the network.
        workers: threads that read ahead; 0: none.
        on_error: what an unreadable image does: `stop` with an error, or `skip`, counted.
        shards: where finished blocks are kept; their settings must say of which images and of which
            network they are. None: nowhere.
        progress: draw a bar.

    Raises:
        InputError: a number out of range, an unknown choice.
    """

    batch_size: int = 64
    workers: int = 2
    on_error: str = "stop"
    shards: Shards | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        as_int("batch_size", self.batch_size)
        as_int("workers", self.workers, 0)
        choice("on_error", self.on_error, ON_ERROR)


def extract(source: Source, ask: Ask, how: Extraction, name: str = "images") -> Iterator[Block]:
    """The blocks of a source, in its order, whatever the batches and the workers.

    Args:
        source: images by number.
        ask: (images (n, C, H, W) uint8, their numbers) -> features and logits or None.
        how: see Extraction.
        name: of these blocks among others in `how.shards`.

    Raises:
        InputError: an unreadable image under `stop`, all of them in a block named; what the source
            and the network raise.
    """
    workers = 0 if source.in_order else how.workers
    gathered = _Gathered()
    with Progress(len(source), how.progress, name) as bar:
        for task, part in _ahead(source, _tasks(source, how, name), workers):
            bar.advance(len(task.numbers))
            if task.kept is None:
                gathered.add(part, ask)
            if not task.last:
                continue
            block, gathered = task.kept or gathered.block(), _Gathered()
            if block.unreadable and how.on_error == "stop":
                raise _refused(block.unreadable, task.numbers.stop)
            if task.kept is None:
                _keep(block, how, task.place)
            yield block


def extract_batches(batches: Iterable[Tensor], ask: Ask) -> Iterator[Block]:
    """The blocks of batches that come along, such as a live model's: each batch is one.

    Args:
        batches: (n, 1 or 3, H, W), uint8 or floats in [-1, 1].
        ask: as for `extract`.
    """
    seen = 0
    for batch in batches:
        part = Tensors(batch, f"images from {seen} on").read(range(len(batch)))
        yield Block(*ask(part.images, range(seen, seen + len(batch))))
        seen += len(batch)


class _Task(NamedTuple):
    """A batch to read, or a block that is kept."""

    place: str  # where its block is kept
    numbers: range
    last: bool  # of its block
    kept: Block | None = None


class _Gathered:
    """The batches of a block, as they come."""

    def __init__(self) -> None:
        self.features: list[Tensor] = []
        self.logits: list[Tensor] = []
        self.unreadable: tuple[str, ...] = ()

    def add(self, part: Part, ask: Ask) -> None:
        """Ask the network, unless no image could be read."""
        self.unreadable += part.unreadable
        if part.numbers:
            features, logits = ask(part.images, part.numbers)
            self.features.append(features)
            self.logits += [] if logits is None else [logits]

    def block(self) -> Block:
        """All of it."""
        features = torch.cat(self.features) if self.features else torch.empty(0, 0)
        logits = torch.cat(self.logits) if self.logits else None
        return Block(features, logits, self.unreadable)


def _tasks(source: Source, how: Extraction, name: str) -> Iterator[_Task]:
    """The batches of the blocks that are not kept, and the kept blocks, in order."""
    for number, start in enumerate(range(0, len(source), BLOCK)):
        place, stop = f"{name}-{number:05d}", min(start + BLOCK, len(source))
        kept = _kept(how, place)
        if kept is not None:
            yield _Task(place, range(start, stop), True, kept)
            continue
        for first in range(start, stop, how.batch_size):
            last = min(first + how.batch_size, stop)
            yield _Task(place, range(first, last), last == stop)


def _ahead(source: Source, tasks: Iterator[_Task], workers: int) -> Iterator[tuple[_Task, Part]]:
    """Every task with what was read for it, in order; `workers` + 1 are read before their turn."""
    nothing = Part(torch.empty(0), [])
    if not workers:
        for task in tasks:
            yield task, nothing if task.kept else source.read(task.numbers)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="images") as pool:
        waiting: deque[tuple[_Task, Future[Part] | None]] = deque()
        try:
            for task in tasks:
                waiting.append(
                    (task, None if task.kept else pool.submit(source.read, task.numbers))
                )
                if len(waiting) > workers + 1:
                    first, part = waiting.popleft()
                    yield first, nothing if part is None else part.result()
            for first, part in waiting:
                yield first, nothing if part is None else part.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _kept(how: Extraction, place: str) -> Block | None:
    """A finished block, as an earlier run left it."""
    found = None if how.shards is None else how.shards.load(place)
    if found is None:
        return None
    values, note = found
    width, bad = note.get("width"), note.get("unreadable")
    if not isinstance(width, int) or not isinstance(bad, list) or values.ndim != 2:
        return None
    logits = values[:, width:] if values.shape[1] > width else None
    return Block(values[:, :width], logits, tuple(map(str, bad)))


def _keep(block: Block, how: Extraction, place: str) -> None:
    if how.shards is None:
        return
    features, logits, bad = block
    values = features if logits is None else torch.cat([features, logits], 1)
    note = {"width": features.shape[1], "unreadable": list(bad)}
    how.shards.store(place, values, note)


def _refused(bad: Sequence[str], seen: int) -> InputError:
    more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    problem = f"{len(bad)} of the first {seen} cannot be read: {', '.join(bad[:SHOWN])}{more}"
    return InputError("images", problem, "Mend them, or leave them out by --on-error skip")
