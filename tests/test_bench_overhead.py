"""The engine's own cost: measured against a loop that gives the same samples."""

from __future__ import annotations

import sys

import pytest
import torch

from bench import baselines, overhead


def test_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(overhead, "SHAPES", ((2, 1, 3, 3),))
    monkeypatch.setattr(sys, "argv", ["overhead", "--steps", "3", "--repeats", "2"])
    overhead.main()
    line = capsys.readouterr().out.splitlines()[-1]
    size, ours, plain, quotient = (cell.strip() for cell in line.strip("|").split("|"))
    assert size == "2x1x3x3" and float(ours) > 0 and float(plain) > 0
    assert float(quotient) > 0


def test_other_samples_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "cfg", lambda net, x, row, cond, null, w: net(x, row.t, cond))
    with pytest.raises(AssertionError, match="not close"):
        overhead.ratio((2, 1, 3, 3), 3, 1, torch.device("cpu"))
