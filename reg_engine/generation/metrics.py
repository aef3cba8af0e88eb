"""How far a run is: counted, and written for Prometheus's node_exporter, whose textfile collector
reads whole files of `name{labels} value` lines."""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from ..errors import InputError
from ..storage.files import check_writable, write_whole
from .making import Finished
from .records import Records

__all__ = ["Metrics"]

_PREFIX = "reg_engine_generate_"
_PAUSE = 1.0  # seconds between two writes: a collector looks every few


class Metrics:
    """What a run has done; as a context manager, which writes it at its begin and end.

    Args:
        path: a .prom file, or None. Under torchrun each process writes its own, RANK in its name.
        records: of the job.
        missing: shards that were not done at its begin.

    Attributes:
        images, failed: made, and seeds that could not be, by this run.
        seconds: since its begin.

    Raises:
        InputError: the file cannot be written, or is no .prom, which no collector reads.
    """

    def __init__(self, path: str | None, records: Records, missing: int) -> None:
        self.path = None if path is None else _target(path)
        self.job, self.shards = records.key[:16], records.job.shards
        self.images, self.failed, self.batch_size = 0, list[int](), records.job.batch_size
        self.shards_made, self.done = 0, self.shards - missing
        self._at_first, self._begun, self._written = self.done, time.perf_counter(), -math.inf

    @property
    def seconds(self) -> float:
        """Since the begin."""
        return time.perf_counter() - self._begun

    @property
    def seconds_left(self) -> float:
        """At the rate of all workers since the begin; inf: nothing is done yet."""
        made, left = self.done - self._at_first, self.shards - self.done
        return left * self.seconds / made if made > 0 else (math.inf if left else 0.0)

    def count(self, shard: Finished) -> None:
        """A shard is finished."""
        self.images += shard.images
        self.failed += shard.failed
        self.shards_made += 1
        self.done, self.batch_size = shard.done, shard.batch_size
        if time.monotonic() - self._written >= _PAUSE:
            self._write(running=True)

    def __enter__(self) -> Metrics:
        self._write(running=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(*[InputError] * (kind is not None)):  # the error that ends the run is told
            self._write(running=False)

    def text(self, running: bool) -> str:
        """In Prometheus's text format."""
        rows: list[tuple[str, str, str, float]] = [
            ("running", "gauge", "1 while it runs, 0 once it has ended.", running),
            ("shards", "gauge", "Shards of the job.", self.shards),
            ("shards_done", "gauge", "Shards that are done, by all workers.", self.done),
            ("shards_made_total", "counter", "Shards made by this run.", self.shards_made),
            ("images_total", "counter", "Images made by this run.", self.images),
            ("failed_images_total", "counter", "Images that are NaN or Inf.", len(self.failed)),
            ("batch_size", "gauge", "Images sampled together.", self.batch_size),
            ("elapsed_seconds", "gauge", "Since the run began.", self.seconds),
            ("left_seconds", "gauge", "Until the job is done, at this rate.", self.seconds_left),
            ("written_timestamp_seconds", "gauge", "When this was written.", time.time()),
        ]
        lines: list[str] = []
        labels = f'job_key="{self.job}",rank="{_rank() or 0}"'
        for name, kind, said, value in rows:
            number = "+Inf" if value == math.inf else repr(float(value))
            lines += [f"# HELP {_PREFIX}{name} {said}", f"# TYPE {_PREFIX}{name} {kind}"]
            lines.append(f"{_PREFIX}{name}{{{labels}}} {number}")
        return "\n".join(lines) + "\n"

    def _write(self, running: bool) -> None:
        if self.path is not None:
            self._written = time.monotonic()
            write_whole(self.path, self.text(running).encode(), "--metrics")


def _target(text: str) -> Path:
    path = Path(text)
    if path.suffix != ".prom":
        raise InputError("--metrics", f"is {text!r}", "Name a .prom: node_exporter reads no other")
    return check_writable(path.with_suffix(f".{_rank()}.prom") if _rank() else path, "--metrics")


def _rank() -> str:
    """Of several processes of a torchrun; "" = alone."""
    rank, size = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    return rank if rank.isdecimal() and size.isdecimal() and int(size) > 1 else ""
