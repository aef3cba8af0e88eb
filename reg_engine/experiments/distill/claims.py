"""What the experiment `distill` asks of students, with the figures behind each answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...data.mnist import DATA_SETS
from ...evaluation.fronts import Difference
from ..report import Report

__all__ = ["image_claims", "mixture_claims", "settings_of"]

TWICE = 2.0  # of the teacher's distance
NEARER = 10.0  # times nearer than CFG, at w = 2
COST = 0.55  # of CFG's time


def mixture_claims(report: Report) -> None:
    """At the most steps that were measured: near the teacher, far nearer than CFG, one evaluation
    where CFG takes two."""
    numbers = report.numbers["mixture"]
    methods, weights = numbers["methods"], numbers["weights"]
    costs = {name: float(methods[name]["cost"][-1]) for name in ("student_golden", "cfg")}
    report.claim(
        "half",
        "mixture: a student takes half of CFG's evaluations",
        2 * costs["student_golden"] == costs["cfg"],
        f"{costs['student_golden']:g} and {costs['cfg']:g} a sample",
    )
    if report.quick:  # so short a training answers nothing
        return
    own, golden, cfg = (
        [float(v) for v in methods[name]["distance"][-1]]
        for name in ("student_golden", "golden", "cfg")
    )
    found = {w: a / b for w, a, b in zip(weights, own, golden, strict=True)}
    report.claim(
        "near_teacher",
        f"mixture: the student of golden guidance is within {TWICE:g} times its teacher's energy "
        "distance at every w",
        max(found.values()) <= TWICE,
        ", ".join(f"{ratio:.2f} at w = {w:g}" for w, ratio in found.items()),
    )
    if 2.0 in weights:
        ratio = cfg[weights.index(2.0)] / own[weights.index(2.0)]
        text = f"mixture, w = 2: it is {NEARER:g} times nearer to the target than CFG"
        report.claim("nearer_than_cfg", text, ratio >= NEARER, f"{ratio:.0f} times")


def settings_of(numbers: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Solver and steps of the image points, in the order they were sampled."""
    return list(dict.fromkeys((row["solver"], row["steps"]) for row in numbers["points"]))


def image_claims(report: Report) -> None:
    """No point of the student above its teacher's front; half of CFG's evaluations and time."""
    numbers, title = report.numbers["images"], DATA_SETS[report.data_set].title
    for solver, steps in settings_of(numbers):
        rows = [r for r in numbers["against"] if (r["solver"], r["steps"]) == (solver, steps)]
        told = [(r["scale"], Difference(*r["difference"])) for r in rows if r["difference"]]
        if not told or report.quick:  # so few samples answer nothing
            continue
        worst, apart = max(told, key=lambda each: each[1].value - each[1].error)
        lost = sum(each.above for _, each in told)
        report.claim(
            f"front_{solver}_{steps}",
            f"{title}, {solver}, {steps} steps: at no scale does the student's FID lie above its "
            "teacher's front beyond the error bar",
            lost == 0,
            f"{lost} of {len(told)}; most at scale {worst:g}: {apart.text}",
        )
    fronts = [Difference(*r["difference"]) for r in numbers["against_cfg"] if r["difference"]]
    if fronts and not report.quick:
        lost, won = sum(each.above for each in fronts), sum(each.below for each in fronts)
        report.claim(
            "front_cfg",
            f"{title}: at no scale does the student's FID lie above CFG's front beyond the error "
            "bar",
            lost == 0,
            f"above at {lost}, below at {won} of {len(fronts)}",
        )
    first = settings_of(numbers)[0]
    costs = {r["method"]: r["nfe"] for r in numbers["points"] if (r["solver"], r["steps"]) == first}
    report.claim(
        "image_half",
        f"{title}: the student takes half of CFG's evaluations",
        2 * costs["student"] == costs["cfg"],
        f"{costs['student']:g} and {costs['cfg']:g} a sample",
    )
    if not report.quick:
        ratio = float(numbers["times"]["student"]["part"])
        text = f"{title}: the student takes at most {COST:g} of CFG's time"
        report.claim("image_time", text, ratio <= COST, f"{ratio:.3f}")
