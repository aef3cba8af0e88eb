"""The one door to the engine's arithmetic. Today there is one backend: plain torch
(reference.py)."""

from __future__ import annotations

from .reference import combine, guided_step, lagged_product, solver_step

__all__ = ["BACKEND", "combine", "guided_step", "lagged_product", "solver_step"]

BACKEND = "reference"
