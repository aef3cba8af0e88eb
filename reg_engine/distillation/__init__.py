"""Guidance distilled into an adapter: a model that samples under it for one evaluation a step."""

from __future__ import annotations

from .check import Difference, differences
from .run import Distilled, distill
from .settings import Distillation
from .teacher import Teacher

__all__ = ["Difference", "Distillation", "Distilled", "Teacher", "differences", "distill"]
