"""`python -m reg_engine.cli` is `reg-engine`."""

from __future__ import annotations

from . import main

main()
