"""The experiment `distill`: `run(report)`; main.py says what it shows."""

from __future__ import annotations

from .main import OPTIONS, run

__all__ = ["OPTIONS", "run"]
