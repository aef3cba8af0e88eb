"""`python -m reg_engine` is `reg-engine`."""

from __future__ import annotations

from .cli import main

main()
