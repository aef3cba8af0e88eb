"""The page of the fractal experiment: tables, claims, and the paper's side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..report import Report
from .claims import claims, ratios
from .figures import NAMES, STAGES
from .measures import mean_of
from .models import METHODS
from .post import FLOW_STEPS, NEAREST
from .text import (
    CLOUDS,
    COSTS,
    CURVES_CAPTION,
    INTRO,
    MORE,
    NOT_TRAINING,
    PARTS,
    REG_CAPTION,
    REG_TEXT,
    SETTING,
)

__all__ = ["CURVES", "PAPER", "write"]

CURVES = {
    "distance": "mean distance to nearest\nreal point of the class (x 100)",
    "energy": "energy distance\nto the class",
    "recall": "recall",
}
# arXiv 2503.10638, Tab. 1 (CFG; three numbers a cell). Neither metric nor scales are known to us.
PAPER = {
    "class 0": ((5.95, 3.11, 1.57), (5.31, 1.70, 1.01), (11.7, 2.05, 1.12)),
    "class 1": ((12.4, 3.25, 1.70), (6.09, 1.88, 1.00), (6.51, 1.41, 0.79)),
}
TRIPLE = ("before", "dedicated", "one")


def write(report: Report, figures: Mapping[str, Any]) -> None:
    """The page, from report.numbers; figures: "clouds", "curves" and "rectified"."""
    numbers = report.numbers
    setting = numbers["setting"]
    report.text(" ".join(INTRO.split()))
    text = SETTING.format(
        **{**setting, "scales": ", ".join(f"{s:g}" for s in setting["scales"])},
        nearest=NEAREST,
        flow_steps=FLOW_STEPS,
    )
    report.section("Setting", "\n\n".join(" ".join(part.split()) for part in text.split("\n\n")))
    report.section("Before and after")
    report.figure("clouds", figures["clouds"], CLOUDS)
    report.figure("curves", figures["curves"], CURVES_CAPTION)
    for method in METHODS:
        _tab1(report, method)
    _more(report)
    report.section("What the distance does not see")
    for method in METHODS:
        _measures(report, method)
    report.section("REG instead", _reg_text(numbers))
    report.figure("rectified", figures["rectified"], REG_CAPTION.format(**setting))
    _costs(report)
    _parts(report)
    _paper(report)
    claims(report)


def _tab1(report: Report, method: str) -> None:
    numbers = report.numbers
    table, floor = numbers["methods"][method], numbers["floor"]
    scales = [scale for scale in table if "dedicated" in table[scale]]
    rows = []
    for y in (0, 1):
        cells = [
            " / ".join(f"{table[scale][stage][y]['distance']:.2f}" for stage in TRIPLE)
            for scale in scales
        ]
        rows.append([f"class {y}", *cells, f"{floor[y]['distance']:.2f}"])
    report.table(
        [NAMES[method], *(f"scale {scale}" for scale in scales), "fresh real points"],
        rows,
        "Mean distance to the nearest real point of the class, x 100: before / dedicated / "
        f"one-for-all. 95 % intervals are within {_widest(table):.0%} of each value.",
    )


def _widest(table: Mapping[str, Any]) -> float:
    """The largest half width of an interval, as a share of its value."""
    return max(
        (each["high"] - each["low"]) / 2 / each["distance"]
        for stages in table.values()
        for stage in TRIPLE
        for each in stages.get(stage, [])
    )


def _measures(report: Report, method: str) -> None:
    numbers = report.numbers
    keys = ("distance", "precision", "recall", "energy", "energy_target", "own_class", "nearer")
    rows = []
    for scale, stages in numbers["methods"][method].items():
        for stage in (name for name in STAGES if name in stages):
            values = [mean_of(stages[stage], key) for key in keys]
            rows.append([scale, STAGES[stage][0], *_cells(values)])
    floor = [mean_of(numbers["floor"], key) for key in keys]
    rows.append(["", "fresh real points", *_cells([*floor[:4], float("nan"), *floor[5:]])])
    report.table(
        [
            f"{NAMES[method]}: scale",
            "samples",
            "distance x 100",
            "precision",
            "recall",
            "energy to class",
            "energy to target",
            "own class",
            "memory",
        ],
        rows,
        "Averages of both classes.",
    )


def _cells(values: Sequence[float]) -> list[str]:
    distance, precision, recall, energy, target, own, nearer = values
    shown = "" if target != target else f"{target:.1e}"
    return [
        f"{distance:.2f}",
        f"{precision:.2f}",
        f"{recall:.2f}",
        f"{energy:.1e}",
        shown,
        f"{own:.1%}",
        f"{nearer:.2f}",
    ]


def _more(report: Report) -> None:
    """Whether more training closes the gap between one-for-all and dedicated flows."""
    numbers = report.numbers
    found = ratios(numbers, "more", "dedicated").get("cg")
    if not found:
        return
    gaps = [
        abs(mean_of(stages["one"], "distance") - mean_of(stages["dedicated"], "distance"))
        for table in numbers["methods"].values()
        for stages in table.values()
        if "dedicated" in stages
    ]
    shown = ", ".join(f"{value - 1:+.0%} (scale {scale})" for scale, value in found.items())
    more, floor = numbers["setting"]["more"], mean_of(numbers["floor"], "distance")
    why = NOT_TRAINING if max(found.values()) > 1.1 else "That is within 10 %."
    report.text(MORE.format(more=more, found=shown, why=why, gap=max(gaps), floor=floor))


def _reg_text(numbers: Mapping[str, Any]) -> str:
    scale = f"{numbers['setting']['shown']:g}"
    target = numbers["target_own_class"][scale]
    plain, reg = (
        mean_of(numbers["methods"]["cg"][scale][stage], "own_class") for stage in ("before", "reg")
    )
    shares = {"target": sum(target) / 2, "plain": plain, "reg": reg}
    return REG_TEXT.format(**numbers["setting"], **shares)


def _costs(report: Report) -> None:
    setting = report.numbers["setting"]
    stages = report.numbers["methods"]["cfg"][f"{setting['shown']:g}"]
    at_scale: dict[str, float] = {"shown": setting["shown"]}
    for stage in ("before", "reg", "one", "reg_post"):
        at_scale[stage] = mean_of(stages[stage], "distance")
        at_scale[f"energy_{stage}"] = mean_of(stages[stage], "energy")
    rows = [
        [name, f"{cost['nfe']:.0f}", f"{cost['backward']:.0f}", cost["needs"]]
        for name, cost in report.numbers["costs"].items()
    ]
    report.table(
        ["CFG, one sample", "network evaluations", "backward passes", "needs besides"],
        rows,
        COSTS.format(**at_scale),
    )


def _parts(report: Report) -> None:
    parts = report.numbers["parts"]
    scales = list(parts)
    names = list(dict.fromkeys(name for row in parts.values() for name in row))
    rows = [
        [name, *(_part(parts[scale][name]) if name in parts[scale] else "" for scale in scales)]
        for name in names
    ]
    report.section(
        "Whose error is it?",
        "The mixture's denoiser and p(y|x_t) are exact, so each part can be replaced by what it "
        "should be. CFG with the exact denoiser is CG with the exact classifier: the same "
        "trajectories, by Bayes' rule.",
    )
    report.table(
        ["parts", *(f"scale {scale}" for scale in scales)],
        rows,
        "Distance x 100, energy distance to the class, share in the own class; "
        f"{report.numbers['setting']['exact']} samples a class. {PARTS}",
    )


def _part(classes: Sequence[Mapping[str, float]]) -> str:
    distance, energy, own = (mean_of(classes, key) for key in ("distance", "energy", "own_class"))
    return f"{distance:.2f}, {energy:.2f}, {own:.0%}"


def _paper(report: Report) -> None:
    rows = [
        [name, *(" / ".join(f"{value:g}" for value in cell) for cell in cells)]
        for name, cells in PAPER.items()
    ]
    theirs = [cell[0] / value for cells in PAPER.values() for cell in cells for value in cell[1:]]
    gains = [ratios(report.numbers, "before", stage)["cfg"] for stage in ("dedicated", "one")]
    ours = [value for found in gains for scale, value in found.items() if scale in gains[0]]
    report.section(
        "Against the paper",
        "The paper shows that samples at large scales lie off the branches, that postprocessing "
        "takes them back, for CG and for CFG, and that one flow for all scales does as well. Its "
        "Table 1 (CFG) does not name a metric in the text known to us, nor the scales, nor which "
        "of a cell's numbers is which, so only its ratios can be compared: from the first number "
        f"of a cell to the others it goes down {min(theirs):.1f} to {max(theirs):.1f} times; our "
        f"distance, before to after, {min(ours):.1f} to {max(ours):.1f} times. The constants of "
        "the data, the learning rates and k are unknown too.",
    )
    shares = ratios(report.numbers, "one", "dedicated")["cfg"].values()
    report.table(
        ["", "scale A", "scale B", "scale C"],
        rows,
        "The paper's numbers, metric not named. If a cell reads before / dedicated / one-for-all, "
        "which is a guess, one-for-all has 0.5 to 0.6 times the value of dedicated; here it has "
        f"{min(shares):.2f} to {max(shares):.2f} times.",
    )
