"""What calibration refuses: damaged files, bad input, networks that break."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import SHAPE, TinyNet, tiny

from reg_engine import Damping, InputError, NumericalError, calibrate_damping, schedules

TEXT = json.dumps(
    {
        "format": "reg_engine.damping/1", "method": "tilt", "levels": [0.1, 1.0],
        "factors": [[0.9, 0.4], [0.8, 0.3]], "scales": [2.0, 3.0], "rejected": [0.1, 0.2],
        "model": "", "report": {},
    }
)  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{", ""),
        ("damping/1", "damping/3"),
        ("reg_engine.damping/1", "reg_engine.plan/1"),
        ("[0.1, 1.0]", "[1.0, 0.1]"),
        ("[0.1, 1.0]", "[0.1]"),
        ("[0.1, 1.0]", "[true, 1.0]"),
        ("[0.1, 1.0]", "[" + "9" * 401 + ", 1.0]"),
        ("[0.1, 1.0]", "[0.1, NaN]"),
        ("[0.1, 1.0]", "null"),
        ("[0.8, 0.3]", "[0.8]"),
        ("[0.8, 0.3]", "[0.8, -0.3]"),
        ("[0.8, 0.3]", "0.8"),
        (", [0.8, 0.3]", ""),
        ("[2.0, 3.0]", "[3.0, 2.0]"),
        ("[2.0, 3.0]", "[1.0, 2.0]"),
        ("[2.0, 3.0]", "[]"),
        ("[0.1, 0.2]", "[0.1, 1.2]"),
        ("[0.1, 0.2]", "[0.1]"),
        ('"tilt"', '"rayleigh"'),
        ('"tilt"', '"other"'),
        ('"model": ""', '"model": 3'),
        ("{}", "[]"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "d.json"
    path.write_text(TEXT)
    assert Damping.load(path).scales == (2.0, 3.0)
    assert old in TEXT
    path.write_text(TEXT.replace(old, new))
    with pytest.raises(InputError) as caught:
        Damping.load(path)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("changes", "argument"),
    [
        ({"method": "spread"}, "method"),
        ({"method": "tilt", "scales": (1.0, 2.0)}, "scales"),
        ({"method": "tilt", "scales": (3.0, 2.0)}, "scales"),
        ({"method": "tilt", "scales": (math.nan,)}, "scales"),
        ({"method": "tilt", "scales": ()}, "scales"),
        ({"method": "tilt", "repeats": 0}, "repeats"),
        ({"method": "tilt", "cond": [0, 1, 2], "seeds": [0, 1, 2]}, "cond"),
        ({"levels": (0.5,)}, "levels"),
        ({"levels": (0.5, 0.1)}, "levels"),
        ({"levels": (0.5, 1000.0), "schedule": schedules.VPLinear()}, "noise_level"),
        ({"x0": torch.zeros(8, 4, 4)}, "x0"),
        ({"x0": torch.zeros(8, *SHAPE, dtype=torch.long)}, "x0"),
        ({"x0": torch.full((8, *SHAPE), math.nan)}, "x0"),
        ({"x0": [0.0]}, "x0"),
        ({"x0": torch.zeros(8, *SHAPE), "seeds": range(4)}, "seeds"),
        ({"x0": torch.zeros(8, *SHAPE), "cond": [0, 1]}, "x0"),
        ({"seeds": [3]}, "seeds"),
        ({"scale": 2.0}, "scale"),
        ({"rectify": "vjp"}, "rectify"),
        ({"colour": 1}, "colour"),
        ({"cond": 7}, "cond"),
        ({"cond": 3, "x0": torch.zeros(8, *SHAPE)}, "cond"),  # the null label: delta is 0
    ],
)
def test_bad_input_is_named(changes: dict[str, Any], argument: str) -> None:
    call = {"model": tiny(), "cond": 0, "steps": 2, "progress": False, **changes}
    with pytest.raises(InputError, match=f"^{argument}: "):
        calibrate_damping(**call)


def test_a_nan_is_told_with_its_level() -> None:
    class Broken(TinyNet):
        def forward(self, x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
            return super().forward(x, t, cond) / (t[:, None, None, None] > 0)  # 0/0 below level 1

    call = {"x0": torch.zeros(4, *SHAPE), "levels": (0.5, 2.0), "progress": False}
    with pytest.raises(NumericalError, match="noise level 0.5"):
        calibrate_damping(tiny(net=Broken()), 0, **call)
