"""Arguments of the ops that do not fit: named, with what was found, before anything is launched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from op_cases import arguments, door

from reg_engine import InputError
from reg_engine.ops import door as ops

BAD = {
    "combine": [
        ({"ref": torch.ones(2, 3, 5)}, "ref.*(2, 3, 5).*(2, 3, 4)"),
        ({"term": torch.ones(2, 3, 4, dtype=torch.int64)}, "term.*int64"),
        ({"cond": torch.ones(2, 3, 4, dtype=torch.complex64)}, "cond.*complex64"),
        ({"cond": torch.tensor(1.0), "ref": None, "term": None}, "cond.*batch dimension"),
        ({"channels": -2}, "channels.*-2"),
        ({"ref": torch.ones(2, 3, 4, device="meta")}, "ref.*meta.*cpu"),
    ],
    "guided_step": [
        ({"x": torch.ones(2, 3, 4).half()}, "x.*float16.*float32 or float64"),
        ({"cond": torch.ones(2, 3)}, r"cond.*\(2, 3\).*\(2, 3, 4\)"),
        ({"table": torch.ones(3, 13)}, "table.*float32"),
        ({"table": torch.ones(3, 11, dtype=torch.float64)}, r"table.*\(3, 11\)"),
        ({"step": torch.tensor(3)}, "step.*is 3"),
        ({"step": torch.tensor(1.0)}, "step.*float32"),
        ({"step": torch.tensor([0, 1])}, "step.*2 elements"),
        ({"gain": torch.ones(3, dtype=torch.float64)}, r"gain.*\(3,\).*\(2,\)"),
        ({"noise": torch.ones(2, 3, 4)}, "noise.*float32.*float64"),
        ({"history": None}, r"history.*None.*\(2, 2, 3, 4\)"),
        ({"history": torch.ones(1, 2, 3, 4, dtype=torch.float64)}, r"history.*\(1, 2, 3, 4\)"),
        (
            {"history": torch.ones(2, 2, 3, 8, dtype=torch.float64)[..., ::2]},
            "history.*contiguous",
        ),
        ({"out": torch.ones(2, 3, 4)}, "out.*float32"),
        ({"x": torch.ones(2, dtype=torch.float64), "channels": 1}, "cond"),
    ],
    "reduce": [
        ({"v": None}, "v.*None"),
        ({"w": torch.ones(2, 3)}, r"w.*\(2, 3\)"),
        ({"u": torch.ones(2, 3, 4, dtype=torch.int32)}, "u.*int32"),
    ],
    "probe": [
        ({"direction": torch.ones(2, 3)}, r"direction.*\(2, 3\)"),
        ({"length": torch.ones(2)}, "length.*float32"),
        ({"copies": -1}, "copies.*-1"),
        ({"dtype": torch.int64}, "dtype.*int64"),
        ({"x": torch.ones(2, 3, 4).half()}, "x.*float16"),
    ],
}


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [(name, *case) for name, cases in BAD.items() for case in cases],
)
def test_bad_arguments_are_named_before_anything_runs(
    name: str, changes: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def op(name: str) -> Callable[..., None]:
        pytest.fail("launched")

    monkeypatch.setattr(ops.extension, "load", lambda: {"cpu": "loaded"})
    monkeypatch.setattr(ops.extension, "op", op)
    ops._automatic.cache_clear()
    ops._launcher.cache_clear()
    with pytest.raises(InputError, match=words):
        door(name)(**{**arguments(name), **changes})
    ops._automatic.cache_clear()
