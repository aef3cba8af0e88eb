"""Devices without float64 (Apple's MPS, some NPUs), stood for by a mode that forbids it here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from nets import tiny
from torch.utils._python_dispatch import TorchDispatchMode

from reg_engine import Engine, Guidance, InputError, schedules
from reg_engine.guidance.adjustments import Rescale
from reg_engine.guidance.directions import APG, TCFG, APGMix, CFGZeroStar, Delta
from reg_engine.guidance.frequency import FDG
from reg_engine.ops import formulas
from reg_engine.rectifiers import RECTIFIERS
from reg_engine.solvers import SOLVERS

EPS = torch.finfo(torch.float32).eps


def tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors(value)


class NoFloat64(TorchDispatchMode):
    """Every operation on or to float64 raises, as MPS does; a number of Python is not on it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._efficientzerotensor.default:
            return out  # the tangent of a number of Python
        inputs = (v for v in tensors((*args, *(kwargs or {}).values())) if v.dim())
        if any(value.dtype == torch.float64 for value in (*inputs, *tensors((out,)))):
            raise TypeError(f"{func}: this device has no float64")
        return out


@pytest.fixture
def device_without() -> Iterator[NoFloat64]:
    formulas._has_float64.cache_clear()
    with (mode := NoFloat64()):
        yield mode
    formulas._has_float64.cache_clear()


def test_the_probe_finds_out(device_without: NoFloat64) -> None:
    assert formulas.widest(torch.device("cpu")) == torch.float32
    with pytest.raises(InputError, match="^dtype: is float64, which cpu has not"):
        Engine(tiny(), dtype=torch.float64)


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 1025, 100_003])
def test_sums_round_like_their_terms(size: int) -> None:
    """Against float64: an error of the blocks that are added up, whatever the length."""
    vectors = 3 + torch.randn(3, 2, size)
    exact = formulas.reduce(*vectors)
    rows = torch.stack([torch.ones_like(vectors[0]), *vectors], 1)
    blocks = formulas._blockwise(rows)
    assert blocks.dtype == torch.float32 and blocks.shape == exact.shape
    levels = max(1, math.ceil(math.log(max(size, 2), formulas.BLOCK)))
    bound = levels * formulas.BLOCK * EPS * rows.double().abs() @ rows.double().abs().mT
    assert bool(((blocks - exact).abs() <= bound).all())
    assert torch.equal(blocks, blocks.mT)


DIRECTIONS = (
    Delta(), APG(radius=1.0), CFGZeroStar(), TCFG(), APG(radius=1.0, norm_dim=-1), APGMix(after=1),
    FDG((3.0, 2.0), 0.5),
)  # fmt: skip


@pytest.mark.parametrize(
    ("solver", "direction"),
    [(solver, DIRECTIONS[i % len(DIRECTIONS)]) for i, solver in enumerate(SOLVERS)]
    + [("euler_ancestral", direction) for direction in DIRECTIONS],
)
def test_whole_samples_need_no_float64(solver: str, direction: object) -> None:
    """Every estimator: the same samples as with float64 sums, to float32 rounding."""
    flow = SOLVERS[solver].flow_only
    model = tiny("flow", schedules.Flow()) if flow else tiny("epsilon", schedules.ScaledLinear())
    choices = {"solver": solver, "steps": 4, "progress": False, "backend": "reference"}
    for rectify in (None, *RECTIFIERS, "auto"):
        guidance = Guidance(2.0, rectify=rectify, direction=direction, adjust=(Rescale(0.7),))
        exact = Engine(model, guidance=guidance, **choices).sample([0, 1, 2]).samples
        engine = Engine(model, guidance=guidance, **choices)  # its numbers are the host's
        engine.looks = False
        formulas._has_float64.cache_clear()
        try:
            with NoFloat64():
                samples = engine.sample([0, 1, 2]).samples
        finally:
            formulas._has_float64.cache_clear()
        assert samples.dtype == torch.float32
        # Finite differences divide rounding by their step, 1e-2.
        tolerance = 1e-3 if rectify in (None, "vjp") else 1e-2
        error = (samples - exact).norm() / exact.norm()
        assert float(error) < tolerance, (rectify, float(error))
