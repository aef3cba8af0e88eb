"""What a training run says: loss.csv, and a progress bar or plain lines."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Protocol

import torch
from rich.console import Console
from torch import Tensor, nn

from ..loop.progress import Progress
from ..storage.files import write_whole
from ..storage.readers import open_regular
from .config import TrainConfig

__all__ = ["COLUMNS", "LossLog", "Reporter", "Task", "Training"]

SLOWEST = 0.1  # examples a second, for the time that is left: what a row rounds to
COLUMNS = ("step", "epoch", "loss", "lr", "images_per_second", "seconds")
ROW_SECONDS = 30.0  # between two rows, at most, where a step is shorter
WARM = 2  # steps whose faster one gives the pace: the first may be slow
_YEARS = 1e9  # seconds that a date can still show
_LARGEST = 1 << 24  # bytes of a log: 300,000 rows


class Task(Protocol):
    """What is trained: a network, its data and its loss."""

    name: str

    @property
    def size(self) -> int:
        """Examples in the training set."""

    def build(self) -> nn.Module:
        """A new network; initial weights come from torch's global generator."""

    def loss(self, net: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Mean loss of examples `indices` (B,); all randomness is `generator`'s (on the CPU)."""


class Training(Protocol):
    """What a log reads of a run: the Trainer."""

    task: Task
    config: TrainConfig
    net: nn.Module
    device: torch.device
    step: int
    seconds: float
    why: str
    announce: bool
    log: LossLog


class LossLog:
    """loss.csv: one row for every `every` steps, or fewer where steps are slow (`pace`), the loss
    averaged over them.

    Rows are held back until `flush`, which the trainer calls with each checkpoint, so that the file
    never runs ahead of the checkpoint and a resumed run writes no row twice.

    Args:
        path: of the file; whole rows that are there are kept, up to `step`.
        step: steps that are done.
        every: most steps that a row averages.
        losses: of the steps done since the last row.
    """

    def __init__(self, path: Path, step: int, every: int, losses: Sequence[float] = ()) -> None:
        self.path, self.most, self.every = path, every, every
        self._rows: list[tuple[float, ...]] = _rows_up_to(path, step)
        self.losses = list(losses)
        self._before = len(self.losses)  # those that the clock below has not seen
        self._since = time.monotonic()

    def add(self, trainer: Training, loss: float) -> tuple[float, ...] | None:
        """Count one step; return the row that it completes, if it does."""
        self.losses.append(loss)
        config = trainer.config
        if trainer.step % self.every and trainer.step != config.steps:
            return None
        now = time.monotonic()
        examples = (len(self.losses) - self._before) * config.batch_size
        row = (
            trainer.step,
            round(trainer.step * config.batch_size / trainer.task.size, 4),
            round(sum(self.losses) / len(self.losses), 6),
            float(f"{config.learning_rate(trainer.step - 1):.6g}"),
            round(examples / max(now - self._since, 1e-9), 1),
            round(trainer.seconds, 1),
        )
        self._rows.append(row)
        self.losses, self._before, self._since = [], 0, now
        return row

    def pace(self, seconds: float) -> None:
        """Rows for fewer steps, of a length of `seconds`, so that one comes every ROW_SECONDS."""
        self.every = max(1, min(self.most, int(ROW_SECONDS / max(seconds, 1e-9))))

    def flush(self) -> None:
        """Write the file anew, whole or not at all."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        writer.writerows(self._rows)
        write_whole(self.path, text.getvalue().encode(), "folder")


def _rows_up_to(path: Path, step: int) -> list[tuple[float, ...]]:
    """Whole rows of an earlier part of the run; anything after `step` or damaged is dropped.

    The checkpoint alone is what a run goes on from: a log that cannot be read costs its rows.
    """
    try:
        with open_regular(path) as file:
            text = file.read(_LARGEST).decode("utf-8", errors="replace")
    except OSError:
        return []
    rows: list[tuple[float, ...]] = []
    for line in text.splitlines():
        try:
            first, *others = line.split(",")
            row = (int(first), *map(float, others))
        except ValueError:  # the header, or damage
            continue
        before = rows[-1][0] if rows else 0
        if len(row) == len(COLUMNS) and all(map(math.isfinite, row)) and before < row[0] <= step:
            rows.append(row)
    return rows


class Reporter:
    """A line at the start, if the trainer announces itself; then, if it shows its progress, a bar
    on a terminal, and elsewhere a line for every tenth row of the log."""

    def __init__(self, trainer: Training, shown: bool) -> None:
        self.trainer, self.shown = trainer, shown
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Progress(trainer.config.steps, shown, label=f"training {trainer.task.name}")
        self._rows = 0
        self._live = shown and self._console.is_terminal
        self._steps: list[float] = []  # seconds of the first ones of this run

    def update(self, row: tuple[float, ...] | None, seconds: float) -> None:
        """Count one step that took `seconds`, and show the row that it completed."""
        self._bar.advance(1)
        if len(self._steps) < WARM:
            self._steps.append(seconds)
            if len(self._steps) == WARM:
                self.trainer.log.pace(min(self._steps))
            if len(self._steps) == 1 and self.trainer.announce and not self._live:
                self._console.print(self._ends(seconds), markup=False)
        if row is None or not self.shown or self._console.is_terminal:
            return
        self._rows += 1
        if self._rows % 10 == 1 or self.trainer.step == self.trainer.config.steps:
            values = dict(zip(COLUMNS, row, strict=True))
            config, rate = self.trainer.config, values["images_per_second"]  # of a pause: 0.0
            left = (config.steps - self.trainer.step) * config.batch_size / max(rate, SLOWEST)
            self.say(
                f"step {values['step']} of {config.steps}, epoch {values['epoch']:.2f}: "
                f"loss {values['loss']:.5f}, {rate:.0f} examples/s, {left / 60:.1f} minutes left"
            )

    def say(self, text: str) -> None:
        """One line on standard error."""
        if self.shown:
            self._console.print(text, markup=False)

    def _starts(self) -> str:
        """What runs; without a bar, which says it better, `_ends` ends the line."""
        trainer, config = self.trainer, self.trainer.config
        parameters = sum(p.numel() for p in trainer.net.parameters())
        threads = f", {torch.get_num_threads()} threads" if trainer.device.type == "cpu" else ""
        why = f" ({trainer.why})" if trainer.why else ""
        return (
            f"training {trainer.task.name}: {trainer.task.size} examples, {parameters} parameters, "
            f"{config.dtype}{why} on {trainer.device}{threads}, steps {trainer.step + 1} to "
            f"{config.steps} of {config.batch_size}"
        )

    def _ends(self, seconds: float) -> str:
        left = (self.trainer.config.steps - self.trainer.step) * seconds
        when = datetime.now() + timedelta(seconds=min(left, _YEARS))
        return (
            f"first step {seconds:.2g} s: about {left / 60:.3g} minutes, until "
            f"{when:%Y-%m-%d %H:%M}"
        )

    def __enter__(self) -> Reporter:
        if self.trainer.announce and self.trainer.step < self.trainer.config.steps:
            self._console.print(self._starts(), end="\n" if self._live else "; ", markup=False)
        self._bar.__enter__()
        self._bar.advance(self.trainer.step)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.__exit__(kind, error, trace)
