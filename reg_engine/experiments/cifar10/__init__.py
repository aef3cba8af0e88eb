"""The experiment `cifar10`: `run(report)`; main.py says what it shows."""

from __future__ import annotations

from .main import run
from .models import OPTIONS

__all__ = ["OPTIONS", "run"]
