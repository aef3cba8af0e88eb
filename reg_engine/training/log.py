"""What a training run says: loss.csv, and a progress bar or plain lines."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console

from ..progress import Progress

if TYPE_CHECKING:
    from .trainer import Trainer

__all__ = ["COLUMNS", "LossLog", "Reporter"]

COLUMNS = ("step", "epoch", "loss", "lr", "images_per_second", "seconds")


class LossLog:
    """loss.csv: one row for every `every` steps, the loss averaged over them.

    Rows are held back until `flush`, which the trainer calls with each checkpoint, so that the file
    never runs ahead of the checkpoint and a resumed run writes no row twice.
    """

    def __init__(self, path: Path, step: int, every: int) -> None:
        self.path, self.every = path, every
        self._rows: list[tuple[float, ...]] = _rows_up_to(path, step)
        self._losses: list[float] = []
        self._since = time.monotonic()

    def add(self, trainer: Trainer, loss: float) -> tuple[float, ...] | None:
        """Count one step; return the row that it completes, if it does."""
        self._losses.append(loss)
        config = trainer.config
        if trainer.step % self.every and trainer.step != config.steps:
            return None
        now = time.monotonic()
        images = len(self._losses) * config.batch_size
        row = (
            trainer.step,
            round(trainer.step * config.batch_size / trainer.task.size, 4),
            round(sum(self._losses) / len(self._losses), 6),
            float(f"{config.learning_rate(trainer.step - 1):.6g}"),
            round(images / max(now - self._since, 1e-9), 1),
            round(trainer.seconds, 1),
        )
        self._rows.append(row)
        self._losses, self._since = [], now
        return row

    def flush(self) -> None:
        """Write the file anew."""
        with open(self.path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(self._rows)


def _rows_up_to(path: Path, step: int) -> list[tuple[float, ...]]:
    """Rows of an earlier part of the run; anything after `step` is dropped."""
    if step == 0 or not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = [
            (int(row["step"]), *(float(row[name]) for name in COLUMNS[1:]))
            for row in csv.DictReader(file)
        ]
    return [row for row in rows if row[0] <= step]


class Reporter:
    """A progress bar on a terminal; elsewhere a line for every tenth row of the log."""

    def __init__(self, trainer: Trainer, shown: bool) -> None:
        self.trainer, self.shown = trainer, shown
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Progress(trainer.config.steps, shown, label=f"training {trainer.task.name}")
        self._rows = 0

    def update(self, row: tuple[float, ...] | None) -> None:
        """Count one step, and show the row that it completed."""
        self._bar.advance(1)
        if row is None or not self.shown or self._console.is_terminal:
            return
        self._rows += 1
        if self._rows % 10 == 1 or self.trainer.step == self.trainer.config.steps:
            values = dict(zip(COLUMNS, row, strict=True))
            config, rate = self.trainer.config, values["images_per_second"]
            left = (config.steps - self.trainer.step) * config.batch_size / rate
            self.say(
                f"step {values['step']} of {config.steps}, epoch {values['epoch']:.2f}: "
                f"loss {values['loss']:.5f}, {rate:.0f} images/s, {left / 60:.1f} minutes left"
            )

    def say(self, text: str) -> None:
        """One line on standard error."""
        if self.shown:
            self._console.print(text, markup=False)

    def __enter__(self) -> Reporter:
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
