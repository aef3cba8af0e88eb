"""The page of the experiment `distill`: its times, and claims that follow the numbers."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor

from reg_engine.experiments import Report
from reg_engine.experiments.distill import claims, page
from reg_engine.experiments.distill.times import timed

pytest.importorskip("matplotlib")


def test_times_are_medians_of_what_stands_side_by_side() -> None:
    """A delay of one round, and the first round, change nothing; parts are of the same round."""

    class Waiting:
        def __init__(self, *seconds: float) -> None:
            self.seconds = iter(seconds)

        def sample(self, labels: Tensor, seeds: Any) -> Any:
            assert len(labels) == len(seeds) == 10
            return SimpleNamespace(stats=SimpleNamespace(seconds=next(self.seconds)))

    engines: Any = {
        "cfg": Waiting(70.0, 4.0, 40.0, 8.0),
        "student": Waiting(90.0, 1.0, 20.0, 4.0),
    }
    found = timed(engines, 10, 3)
    assert found == {
        "cfg": {"seconds": 0.8, "part": 1.0},
        "student": {"seconds": 0.4, "part": 0.5},
    }


def numbers_of(fid: float) -> dict[str, Any]:
    """Of a full run: the student's FID is `fid` where the teacher has 1, errors 0.1."""
    rows, settings = [], (("dpmpp_2m", 16), ("heun", 9))
    for solver, steps in settings:
        for method, nfe in (("unguided", 16), ("student", 16), ("cfg", 32), ("vjp", 32)):
            row = {"method": method, "scale": 2.0, "solver": solver, "steps": steps}
            row |= {"nfe": nfe, "backward": 0, "fid": fid, "fid_error": 0.1}
            row |= {"confidence": 9.0, "confidence_error": 0.1, "agreement": 0.99}
            rows.append(row)
    own = {"scale": 2.0, "fid": fid, "confidence": 9.0, "front": 1.0, "steps": 16}
    against = [own | {"solver": "dpmpp_2m", "difference": [fid - 1.0, 0.1]}]
    against.append(own | {"solver": "heun", "steps": 9, "front": None, "difference": None})
    cfg = [against[0] | {"front": 2.0, "difference": [2 * fid - 2.2, 0.1]}]
    return {"points": rows, "against": against, "against_cfg": cfg,
            "samples": 1000, "share": 0.048, "by_class": [],
            "teacher": "vjp", "real_images": True, "adapter": {}, "times": {
                "cfg": {"seconds": 0.04, "part": 1.0},
                "student": {"seconds": 0.03, "part": 0.5 * fid}}}  # fmt: skip


@pytest.mark.parametrize("good", [True, False])
def test_claims_follow_the_numbers(good: bool, tmp_path: Path) -> None:
    """And a page with fronts shows them."""
    report = Report("distill", "x", tmp_path)
    far = {"cfg": 40.0, "golden": 1.0, "student_golden": 1.9 if good else 4.1}
    report.numbers["mixture"] = {
        "weights": [2.0], "steps": [9], "floor": [1.0], "network": 62850, "shortfall": {
            "student_golden": [{"scale": 2.0, "samples": 0.5, "evaluations": [17, 17],
                                "levels": [20.0, 5.0, 1.0, 1.0],
                                "estimates": [math.inf, 0.25, 0.75, 0.5]}]},
        "methods": {name: {"cost": [34.0 if name == "cfg" else 17.0], "distance": [[value]],
                           "deviation": [[0.1]]} for name, value in far.items()},
    }  # fmt: skip
    report.numbers["images"] = numbers_of(1.05 if good else 1.2)
    claims.mixture_claims(report)
    claims.image_claims(report)
    held = {key: claim["holds"] for key, claim in report.numbers["claims"].items()}
    assert held == {
        "near_teacher": good, "nearer_than_cfg": good, "half": True, "image_half": True,
        "front_dpmpp_2m_16": good, "front_cfg": good, "image_time": good,
    }  # fmt: skip
    page.write(report)
    report.finish()
    text = (report.folder / "README.md").read_text("utf-8")
    words = "+0.050 ± 0.100" if good else "**+0.200 ± 0.100**"
    assert (
        f"| dpmpp_2m, 16 steps | 2 | 9.00 | {1.05 if good else 1.2:.3f} | 1.000 | {words} |" in text
    )
    assert "| heun, 9 steps | 2 | 9.00 |" in text and "surer than the teacher gets" in text
    assert "| golden | 2 | 0.50 | – | 0.25 | 0.50 |" in text, "the corrector's own place at a level"
    assert f"| student | 30.0 | {0.5 * (1.05 if good else 1.2):.2f} |" in text
    assert (report.folder / "fronts.png").stat().st_size > 10_000
