"""The CIFAR-10 experiment in pieces: it ends by itself, says what is missing, and goes on."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cifar_runs import report

from reg_engine.errors import InputError
from reg_engine.experiments import run_experiment
from reg_engine.experiments.cifar10 import models
from reg_engine.experiments.cifar10.page import EMPTY
from reg_engine.experiments.cifar10.pieces import check, deadline_of
from reg_engine.training import PieceOver

pytest.importorskip("diffusers")
pytest.importorskip("faiss")


def test_pieces_end_by_themselves_say_what_is_missing_and_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of the first network a piece; what is kept is compact; the last one finishes."""
    monkeypatch.delenv("REG_ENGINE_DATA", raising=False)
    monkeypatch.setattr(models, "TINY", replace(models.TINY, samples=8))
    folder = tmp_path / "cifar10"
    for step in (1, 2):
        found = run_experiment("cifar10", tmp_path, quick=True, options={"piece": "1e-9"})
        assert found["numbers"]["missing"] == f"network judge: step {step} of 3"
        assert found["numbers"]["points"] == [] and found["numbers"]["claims"] == {}
        page = " ".join((folder / "README.md").read_text(encoding="utf-8").split())
        assert f"The first thing that is missing: network judge: step {step} of 3;" in page
        assert "reg-engine experiment cifar10 --quick --set piece=1e-9" in page and EMPTY in page
        kept = folder / "work" / "quick-0" / "judge" / "checkpoint.pt"
        state = torch.load(kept, weights_only=True)
        assert state["step"] == step and state["packed"]
    found = run_experiment("cifar10", tmp_path, quick=True, options={"piece": "60"})
    assert "missing" not in found["numbers"] and found["numbers"]["claims"]
    assert found["numbers"]["exercise"]["points"] == 18
    assert not (folder / "work").exists()
    assert json.loads((folder / "numbers.json").read_text(encoding="utf-8")) == found


def test_the_deadline(tmp_path: Path) -> None:
    assert deadline_of(report(tmp_path)) is None
    check(None, "all")
    now = time.monotonic()
    found = deadline_of(report(tmp_path, options={"piece": "2"}))
    assert found is not None and now + 120 <= found <= time.monotonic() + 120
    check(found, "nothing")
    with pytest.raises(PieceOver, match="^the rest$"):
        check(now - 1, "the rest")
    for bad in ("0", "-1", "x", "nan"):
        with pytest.raises(InputError, match="--set piece"):
            deadline_of(report(tmp_path, options={"piece": bad}))
