"""The bar counts what was done, and is silent where nobody looks."""

from __future__ import annotations

import pytest

from reg_engine.loop.progress import Progress


def test_silent_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with Progress(10) as bar:
        bar.advance(3)
    assert capfd.readouterr() == ("", "")


def test_counts_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes any stream for a terminal
    with Progress(10, label="digits") as bar:
        bar.advance(4)
        bar.advance(6)
        assert bar._bar is not None and bar._bar.tasks[0].completed == 10
        assert bar._bar.finished
    assert Progress(10, shown=False)._bar is None
