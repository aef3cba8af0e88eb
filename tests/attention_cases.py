"""What the tests of attention share: inputs, the formula, and a stand-in for a package."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from reg_engine.networks import attention

PACKAGES = ["xformers", "flash_attn"]


def qkv(dtype: torch.dtype, tokens: int = 9, width: int = 16) -> list[Tensor]:
    g = torch.Generator().manual_seed(3)
    sizes = [tokens, tokens + 4, tokens + 4]
    return [torch.randn(2, 3, n, width, generator=g, dtype=torch.float64).to(dtype) for n in sizes]


def formula(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """In float64, whatever comes in."""
    q, k, v = (x.double() for x in (q, k, v))
    return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v


def by_formula(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As a package would: (batch, tokens, heads, width), in the dtype given."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return formula(q, k, v).to(q.dtype).transpose(1, 2)


def pretend(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Install a stand-in for a package, also on the CPU."""
    module, function = attention.PACKAGES[package]
    monkeypatch.setitem(sys.modules, module.split(".")[0], SimpleNamespace())
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{function: by_formula}))
    monkeypatch.setattr(attention, "_PACKAGE_DEVICES", ("cuda", "cpu"))
