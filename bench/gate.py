"""A wrong kernel is not worth timing: the correctness tests run first, and red ones stop all."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

__all__ = ["TESTS", "Unfinished", "selected", "verdict"]

# What is timed here rests on these; each may be a file, a folder, or a pattern.
TESTS = (
    "tests/test_ops_formulas.py",
    "tests/test_ops_coefficients.py",
    "tests/test_ops*.py",
    "tests/test_csrc*.py",
    "tests/test_engine.py",
    "tests/test_loop_graphs.py",
    "tests/kernels",
)
LIMIT = 900  # seconds


class Unfinished(Exception):
    """The tests were stopped by the clock; none was red until then."""


def selected(root: Path) -> list[str]:
    """The files and folders of TESTS that are there."""
    return [
        path.relative_to(root).as_posix()
        for pattern in TESTS
        for path in sorted(root.glob(pattern))
    ]


def verdict(root: Path, tests: list[str] | None = None, limit: float = math.inf) -> str:
    """ "" if the tests under `root` pass, else the end of what pytest said.

    Raises:
        Unfinished: they take longer than `limit` seconds, where that is less than LIMIT.
    """
    chosen = selected(root) if tests is None else tests
    if not chosen:
        return f"none of {', '.join(TESTS)} is there"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not slow", *chosen]
    # the checkout must not come before an installed package
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=min(limit, LIMIT),
        )
    except subprocess.TimeoutExpired as error:
        if limit < LIMIT:
            raise Unfinished(f"the tests were stopped after {limit:.0f} s, none was red") from error
        return f"the tests took more than {LIMIT} s"
    if done.returncode == 0:
        return ""
    return "\n".join((done.stdout + done.stderr).splitlines()[-60:])
