"""The checks of the raw ops: memory is safe whoever calls, and the message has the shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from csrc_cases import device, on
from kernel_cases import F16, F32, F64, coefficients, nan, rand
from torch import Tensor

from reg_engine.ops import extension
from reg_engine.ops.coefficients import FIRST_B

pytestmark = pytest.mark.usefixtures(device.__name__)

SHAPE = (2, 3, 4)


def arguments(name: str) -> dict[str, Any]:
    """Arguments of `extension.op(name)` that fit, in order."""
    kind = rand((1,)).device.type
    x, cond, ref, term, noise = (rand(SHAPE) for _ in range(5))
    table, step = coefficients((3, FIRST_B + 2)), on(kind, 1)
    per_sample, history = rand(SHAPE[:1]), rand((2, *SHAPE))
    of_op: dict[str, dict[str, Any]] = {
        "combine": {"cond": cond, "ref": ref, "term": term, "w": 1.0, "channels": -1},
        "guided_step": {
            "x": x,
            "cond": cond,
            "table": table,
            "step": step,
            "ref": ref,
            "term": term,
            "weight": per_sample,
            "gain": per_sample,
            "noise": noise,
            "history": history,
            "nonfinite": torch.zeros((3, 2), device=kind),
            "channels": -1,
        },
        "reduce": {"u": x, "v": cond, "w": ref},
        "probe": {
            "x": x,
            "direction": cond,
            "length": per_sample,
            "table": table,
            "step": step,
            "copies": 1,
        },
    }
    shapes = {"reduce": ((2, 4, 4), F64), "probe": ((4, 3, 4), F32)}
    return {**of_op[name], "out": nan(*shapes.get(name, (SHAPE, F32)))}


WRONG: dict[str, dict[str, Callable[[Tensor], Any]]] = {
    "combine": {
        "cond": lambda t: t.long(),
        "ref": lambda t: t[:1],
        "term": lambda t: t[..., :3],
        "out": lambda t: t.double(),
    },
    "guided_step": {
        "x": lambda t: t.half(),
        "cond": lambda t: t.flatten(1),
        "table": lambda t: t[:, :FIRST_B],
        "step": lambda t: t.int(),
        "ref": lambda t: t[:, :2],
        "term": lambda t: t.bool(),
        "weight": lambda t: t.double(),
        "gain": lambda t: t[:1],
        "noise": lambda t: t.double(),
        "history": lambda t: t[:1],
        "nonfinite": lambda t: t[:2],
        "out": lambda t: t[:, :1].expand(SHAPE),
    },
    "reduce": {
        "u": lambda t: t.int(),
        "v": lambda t: t[:1],
        "w": lambda t: t[..., 0],
        "out": lambda t: t[:, :3, :3],
    },
    "probe": {
        "x": lambda t: t.to(torch.bfloat16),
        "direction": lambda t: t[:1],
        "length": lambda t: t[:1],
        "table": lambda t: t.double(),
        "step": lambda t: torch.cat([t, t]),
        "out": lambda t: t[:3],
    },
}
CASES = [(name, key) for name, wrong in WRONG.items() for key in wrong]


@pytest.mark.parametrize("name", WRONG)
def test_what_fits_runs(name: str) -> None:
    given = arguments(name)
    extension.op(name)(*given.values())
    assert torch.isfinite(given["out"]).all()


@pytest.mark.parametrize(("name", "key"), CASES)
def test_what_does_not_fit_is_refused(name: str, key: str) -> None:
    given = arguments(name)
    before = given["out"].clone()
    given[key] = WRONG[name][key](given[key])
    sizes = ", ".join(str(n) for n in given[key].shape)
    with pytest.raises(RuntimeError, match=rf"csrc/.*, {key} is \w+ of shape \({sizes}\) on"):
        extension.op(name)(*given.values())
    if key != "out":
        assert torch.equal(given["out"].isnan(), before.isnan())


@pytest.mark.parametrize("wrong", ["strided", "half", "shape", "absent"])
def test_a_ring_that_does_not_fit_is_refused(wrong: str) -> None:
    given = arguments("guided_step")
    given["history"] = {
        "strided": rand((2, *SHAPE[:-1], 8))[..., ::2],
        "half": rand((2, *SHAPE), F16),
        "shape": rand((2, 2, 4, 3)),
        "absent": None,
    }[wrong]
    with pytest.raises(RuntimeError, match="history is"):
        extension.op("guided_step")(*given.values())


@pytest.mark.parametrize("wrong", ["rows", "samples", "strided", "half"])
def test_marks_that_do_not_fit_are_refused(wrong: str) -> None:
    given = arguments("guided_step")
    marks = given["nonfinite"]
    given["nonfinite"] = {
        "rows": marks[:2],
        "samples": marks[:, :1].contiguous(),
        "strided": torch.cat([marks, marks], 1)[:, ::2],
        "half": marks.half(),
    }[wrong]
    with pytest.raises(RuntimeError, match="nonfinite is"):
        extension.op("guided_step")(*given.values())


def test_copies_must_agree_with_out() -> None:
    given = arguments("probe")
    for copies in (-1, 0, 2):
        with pytest.raises(RuntimeError, match=rf"out is .* for {copies} copies of x"):
            extension.op("probe")(*{**given, "copies": copies}.values())


def test_layouts_that_do_not_merge_have_a_limit() -> None:
    """Beyond eight dimensions that cannot be merged, the op says so instead of guessing."""
    shape = (2,) * 9
    gaps = rand((3,) * 9)[(slice(0, 2),) * 9]
    out = nan(shape)
    with pytest.raises(RuntimeError, match="more than 8 dimensions"):
        extension.op("combine")(gaps, gaps, None, 1.0, -1, out)
    dense = rand(shape)
    extension.op("combine")(dense, dense, None, 1.0, -1, out)
    assert torch.equal(out, dense)


@pytest.mark.gpu
def test_devices_must_agree() -> None:
    for name in WRONG:
        given = arguments(name)
        tensors = [key for key, value in given.items() if isinstance(value, Tensor)]
        for key in tensors:
            elsewhere = "cpu" if given[key].is_cuda else "cuda"
            with pytest.raises(RuntimeError, match="cpu"):
                extension.op(name)(*{**given, key: given[key].to(elsewhere)}.values())
