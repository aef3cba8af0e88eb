"""What every kernel of the guidance step must do with a weight of each sample, a clip and marks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from kernel_cases import (
    F32,
    F64,
    FLOATS,
    ROW,
    SHAPE,
    SHAPES,
    VARIANTS,
    bits,
    full,
    make_step,
    nan,
    rand,
)

from reg_engine.ops.coefficients import COLUMNS, FIRST_B


class StepCases:
    """Tests over `run(step, out)` and `verify(step)` of one kernel."""

    run: Callable[..., Any]
    verify: Callable[..., None]

    @pytest.mark.parametrize("dtype", [F32, F64], ids=str)
    @pytest.mark.parametrize("net", FLOATS, ids=str)
    def test_every_bit_is_that_of_plain_torch(self, net: torch.dtype, dtype: torch.dtype) -> None:
        """No fused multiply-add: each product and each sum is rounded, in the order of the twin."""
        for changes in ({"shape": SHAPES[3]}, {"channels": 2}, {"weight": True, "limit": 0.5}):
            case = full(dtype=dtype, net=net, **changes)
            x_s, history = self.run(case, nan(tuple(case.x.shape), dtype))
            twin, twin_history = case.twin()
            assert torch.equal(x_s, twin) and torch.equal(history, twin_history)

    @pytest.mark.parametrize("given", VARIANTS.values(), ids=VARIANTS)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    @pytest.mark.parametrize("dtype", [F32, F64], ids=str)
    def test_each_sample_has_its_own_weight(
        self, dtype: torch.dtype, shape: tuple, given: tuple
    ) -> None:
        """Whatever the row's is, 0 and what is not a number included."""
        for w in (1.5, 0.0, math.nan):
            case = make_step(shape, dtype, given, weight=True)
            case.table[ROW, COLUMNS.index("w")] = w
            self.verify(case)
            self.verify(replace(case, channels=1 if len(shape) > 1 else -1))

    @pytest.mark.parametrize("given", VARIANTS.values(), ids=VARIANTS)
    def test_a_sample_without_weight_is_cond(self, given: tuple) -> None:
        """Bitwise, and the others do not notice."""
        case = full(given=given, weight=True)
        case.weight[1] = 0.0
        broken = replace(case, ref=case.ref if given[0] else None)
        for name in ("ref", "term"):
            value = getattr(case, name)
            if value is not None:
                value = value.clone()
                value[1] = math.nan
            broken = replace(broken, **{name: value})
        plain = replace(case, ref=None, term=None, weight=None)
        out, clean = self.run(broken, nan(SHAPE))[0], self.run(case, nan(SHAPE))[0]
        assert torch.equal(bits(out), bits(clean))
        assert torch.equal(bits(out[1]), bits(self.run(plain, nan(SHAPE))[0][1]))

    @pytest.mark.parametrize("dtype", [F32, F64], ids=str)
    @pytest.mark.parametrize("channels", [-1, 2])
    def test_clipped(self, dtype: torch.dtype, channels: int) -> None:
        self.verify(full(dtype=dtype, channels=channels, weight=True, limit=0.5))
        case = make_step(dtype=dtype, limit=0.25)
        case.table[ROW, COLUMNS.index("keep")] = 0.0
        for name, value in {"p": 0, "q": 1, "a": 0, "skip": 0.5}.items():
            case.table[ROW, COLUMNS.index(name)] = value
        case.table[ROW, FIRST_B] = 1.0
        out = self.run(case, nan(SHAPE, dtype))[0]
        assert float(out.abs().max()) == 0.25 and float(out.abs().min()) < 0.25

    @pytest.mark.filterwarnings("ignore:invalid value encountered")  # of the interpreter's NumPy
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("limit", [math.inf, 0.5])
    def test_samples_that_are_not_finite_are_marked(self, value: float, limit: float) -> None:
        """`run` compares the marks with what lies in x_s; here some are there."""
        for shape in (SHAPE, (70, 2), (3, 2, 1)):
            case = make_step(shape, noise=True, lags=1, ring=2, limit=limit)
            case.cond[1].view(-1)[-1] = value
            out = self.run(case, rand(shape))[0]
            finite = out.reshape(len(out), -1).isfinite().all(1)
            assert not finite[1] and finite[0] and finite[2:].all()
