"""What guidance costs on the packaged models, against the plain loop."""

from __future__ import annotations

import sys
import time

import pytest
import torch

from bench import baselines, price


def test_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(price, "CASES", (("mnist", "euler", 4),))
    monkeypatch.setattr(price, "ESTIMATORS", (None, "alternate"))
    monkeypatch.setattr(sys, "argv", ["price", "--samples", "2", "--repeats", "1"])
    price.main()
    head, rule, *lines = capsys.readouterr().out.splitlines()
    assert head.endswith("| mnist, euler 4 |") and set(rule) == {"|", "-"}
    cells = dict([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert list(cells) == ["CFG", "alternate", "damping", "damping, skip 0.15"]
    assert cells["CFG"].endswith(" (8.0)") and cells["damping"].endswith(" (8.0)")
    assert float(cells["CFG"].split()[0]) > 0 and not cells["alternate"].endswith(" (8.0)")


def test_a_ratio_is_to_the_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that the plain loop moves by 2 and a sample of ours by 3."""
    clock = [0.0]

    def plain(*_: object, **__: object) -> None:
        clock[0] += 2.0

    class Slow(price.Engine):
        def sample(self, *arguments: object, **choices: object) -> object:
            clock[0] += 3.0
            return super().sample(*arguments, **choices)  # type: ignore[arg-type]

    monkeypatch.setattr(baselines, "sample", plain)
    monkeypatch.setattr(price, "Engine", Slow)
    monkeypatch.setattr(price, "ways", lambda model: {"CFG": {"scale": 2.0, "rectify": None}})
    monkeypatch.setattr(time, "process_time", lambda: clock[0])
    model = price.load_model("mnist")
    found = price.ratios(model, "euler", 2, 1, 3, torch.device("cpu"))
    assert found == {"CFG": (1.5, 4.0)}
