"""Marginal against joint scaling in one dimension, measured on chains of the two settings."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ...oracles import one_d
from ..report import Report
from .chains import Chain, Gap, paper_levels, two_class_1d, vp_levels
from .figures_1d import scaling_figure

PAPER, OURS = "paper's 1-D", "two classes"
KINDS = ("cfg", "golden")
ENDS = ("unguided", "cfg", "reg", "golden")

Gaps = dict[str, list[Gap]]  # "cfg", "golden" -> the gap of every step


def scaling(report: Report) -> None:
    """Implied next to demanded rewards, over steps and whole chains, into the numbers; a figure.

    `chains.rows`: setting, w, steps, mismatch (CFG, golden; mean nats, summed over the steps),
    the worst kernel of `Chain.joint_run`, and for our setting the total variation to the target of
    whole chains, in the order of ENDS.
    """
    paper = Chain(one_d(), 1.0, paper_levels(), -3.0, 5.0)
    gaps, row, end = _measured(PAPER, paper, ends=False)
    rows, joint_ends = [row], [end]
    shown: dict[int, tuple[Chain, Gaps]] = {}
    for w in (2.0,) if report.quick else (1.0, 2.0, 4.0):
        for steps in (10, 20, 40) if report.quick else (10, 20, 40, 80):
            chain = Chain(two_class_1d(), w, vp_levels(steps), -7.0, 7.0)
            found, row, end = _measured(OURS, chain, ends=True)
            rows.append(row)
            joint_ends.append(end)
            if w == 2:
                shown[steps] = chain, found
        report.say(f"chains at w = {w:g}")
    report.numbers["chains"] = {
        "rows": rows,
        "paper_gaps": {kind: [asdict(gap) for gap in found] for kind, found in gaps.items()},
        "joint_end": joint_ends,
    }
    sums = {
        kind: [(steps, _total(found[kind])) for steps, (_, found) in shown.items()]
        for kind in KINDS
    }
    ours, ours_gaps = shown[20]
    both = {"paper": gaps, "two classes": ours_gaps}
    report.draw("scaling", scaling_figure(paper, ours, both, sums))


def _measured(setting: str, chain: Chain, ends: bool) -> tuple[Gaps, list[Any], float]:
    """Gaps, row, and the distance where the joint chain ends; `ends`: run whole chains too."""
    steps = len(chain.levels) - 1
    gaps = {kind: [chain.gap(t, kind) for t in range(1, steps + 1)] for kind in KINDS}
    found = [chain.distance(chain.run(kind)) if ends else "" for kind in ENDS]
    kernel, end = chain.joint_run()
    totals = [_total(gaps[kind]) for kind in KINDS]
    return gaps, [setting, chain.w, steps, *totals, kernel, *found], end


def _total(gaps: list[Gap]) -> float:
    return sum(gap.mean for gap in gaps)
