"""The experiment `distill`: `run(report)`; main.py says what it shows."""

from __future__ import annotations

from .main import run

__all__ = ["run"]
