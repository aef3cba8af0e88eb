"""What every test runs under: one thread a process, visible uninitialised memory, honest skips."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# `bench` is tested from the checkout. Last: an installed reg_engine stays the one that is tested.
sys.path.append(str(Path(__file__).resolve().parent.parent))

if not torch.cuda.is_available():
    # Triton reads it once, when it is imported, and torch's compiler imports Triton.
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_configure(config: pytest.Config) -> None:
    """Share the cores between test processes instead of fighting over them."""
    if "PYTEST_XDIST_WORKER" in os.environ and "OMP_NUM_THREADS" not in os.environ:
        workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` where no CUDA device is usable, and say so."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device; torch.cuda.is_available() is False here")
    for item in items:
        if item.get_closest_marker("gpu"):  # keywords hold the folders' names too
            item.add_marker(skip)


def pytest_collection_finish() -> None:
    """What is loaded by now stays: who looks for garbage, a benchmark before each measurement for
    one, need not look through it again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """What was kept goes in order."""
    gc.unfreeze()


@pytest.fixture
def alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` takes an estimator whose batches are all alike, as for graphs and compiled blocks."""
    from reg_engine.loop import rows

    settled = rows.settled
    monkeypatch.setattr(rows, "settled", lambda *arguments: settled(*arguments[:5], static=True))


@pytest.fixture(autouse=True)
def same_start() -> Iterator[None]:
    """Seed torch, and fill what `torch.empty` returns with NaN: reading it too early then shows."""
    # `torch.manual_seed` also notes, with a stack trace, what a GPU is to do later: 1 ms a test.
    (torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed)(0)
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
