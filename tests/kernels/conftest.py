"""Triton's interpreter stands in for a GPU where there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

# Triton reads this when it is imported, which torch does for some of its own modules.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def interpreted_without_gpu() -> None:
    """Say why, where a kernel could not run: triton was imported too early."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpretedFunction

    if not torch.cuda.is_available() and not isinstance(tl.sum, InterpretedFunction):
        pytest.fail("triton was imported before TRITON_INTERPRET=1 was set: set it for this run")


@pytest.fixture
def wide_indices(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small tensors are walked with 64-bit indices, as if they were too large for 32."""
    from reg_engine.kernels import strides

    monkeypatch.setattr(strides, "INT32_LIMIT", 1)
    strides.arrange.cache_clear()
    yield
    strides.arrange.cache_clear()
