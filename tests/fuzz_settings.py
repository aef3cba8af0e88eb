"""How much the fuzz tests try. Apart from conftest.py: other tests need no hypothesis."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, given, settings

__all__ = ["given"]

# The same few cases at every run; REG_ENGINE_FUZZ=long (`make fuzz`) tries many new ones. No
# deadline: a first call compiles and loads what later ones find.
_COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("ci", derandomize=True, max_examples=60, database=None, **_COMMON)
settings.register_profile("long", max_examples=3000, print_blob=True, **_COMMON)
settings.load_profile(os.environ.get("REG_ENGINE_FUZZ", "ci"))
