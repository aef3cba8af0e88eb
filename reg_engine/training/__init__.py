"""Training of the packaged models and of colour ones: one loop, a task each."""

from __future__ import annotations

from .config import PieceOver, TrainConfig
from .log import Task
from .tasks import TASKS, Result, export, train_task
from .trainer import Trainer

__all__ = ["TASKS", "PieceOver", "Result", "Task", "TrainConfig", "Trainer", "export", "train_task"]
