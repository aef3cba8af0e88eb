"""The picture of an evaluation: what each method reaches, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .labels import place_labels
from .plots import OKABE_ITO, check_matplotlib, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_evaluation", "save_evaluation"]

Looks = dict[str, dict[str, Any]]
TICKS = [a * 10.0**b for b in range(-3, 4) for a in (1, 1.5, 2, 3, 5, 7)]
CONFIDENCE = "confidence: mean log-odds of the label"


def save_evaluation(report: Mapping[str, Any], path: Path) -> None:
    """Write draw_evaluation(report) as PNG, whole or not at all; raises as it."""
    save_figure(draw_evaluation(report), path)


def draw_evaluation(report: Mapping[str, Any]) -> Figure:
    """Four panels: FID over the scale; the fronts, FID against confidence; each front minus CFG's
    at equal confidence; FID against evaluations at one of those levels.

    Args:
        report: of `reg-engine evaluate`: points, fronts, levels, compared_with,
            confidence_of_test_images.

    Raises:
        InputError: matplotlib is not installed.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 9.4), dpi=120, layout="constrained")
    (scale, front), (apart, cost) = figure.subplots(2, 2)
    points = report["points"]
    names = dict.fromkeys(point["method"] for point in points)
    looks: Looks = {
        name: {"color": colour, "marker": marker, "linewidth": 1.3, "markersize": 5.5}
        for name, colour, marker in zip(names, cycle(OKABE_ITO.values()), cycle("os^Dv<>PX*"))
    }
    own = {name: [point for point in points if point["method"] == name] for name in names}
    _scales(scale, own, looks)
    _fronts(front, own, looks, report["confidence_of_test_images"])
    fronts = report["fronts"]
    others = {name: cells for name, cells in fronts.items() if name != report["compared_with"]}
    held = {name: [cell for cell in c if cell and "cfg" in cell] for name, c in others.items()}
    if any(held.values()):
        _differences(apart, {name: cells for name, cells in held.items() if cells}, looks)
    else:
        _left_out(apart, "The differences to CFG's front need `cfg`\nat two scales or more.")
    level = _level(fronts, len(report["levels"]))
    if level is None:
        _left_out(cost, "A front needs two scales or more.")
    else:
        _costs(cost, {name: cells[level] for name, cells in fronts.items() if cells}, looks)
    for axes in (scale, front, apart, cost):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    columns = min(len(names), 5)
    figure.legend(
        *scale.get_legend_handles_labels(), loc="outside upper center", ncols=columns, frameon=False
    )
    figure.draw_without_rendering()  # now the panel has its place, and labels can be given theirs
    _label_scales(front, own, looks)
    return figure


def _scales(axes: Any, own: Mapping[str, Sequence[Any]], looks: Looks) -> None:
    for name, rows in own.items():
        errors = [row["fid_error"] for row in rows]
        x, y = [row["scale"] for row in rows], [row["fid"] for row in rows]
        _with_bars(axes, x, y, yerr=errors, label=name, **looks[name])
    _log(axes)
    axes.set(xlabel="guidance scale", ylabel="FID (judge's features), lower is better")
    axes.set_title("At equal scale", fontsize=11)


def _fronts(axes: Any, own: Mapping[str, Sequence[Any]], looks: Looks, real: float) -> None:
    for name, rows in own.items():
        bars = {
            "xerr": [r["confidence_error"] for r in rows],
            "yerr": [r["fid_error"] for r in rows],
        }
        x, y = [row["confidence"] for row in rows], [row["fid"] for row in rows]
        _with_bars(axes, x, y, **bars, **looks[name])
    axes.axvline(real, color="black", linestyle=":", linewidth=1)
    _log(axes)
    axes.set(xlabel=CONFIDENCE, ylabel="FID (judge's features)")
    axes.set_title("Fronts (numbers: scales; dotted: real test images)", fontsize=11)


def _with_bars(axes: Any, x: Sequence[float], y: Sequence[float], **look: Any) -> None:
    """A line with bars that are paler than its marks: many cross."""
    _, _, bars = axes.errorbar(x, y, elinewidth=0.9, **look)
    for bar in bars:
        bar.set_alpha(0.35)


def _label_scales(axes: Any, own: Mapping[str, Sequence[Any]], looks: Looks) -> None:
    """The scale beside every mark."""
    lines = [np.array([[row["confidence"], row["fid"]] for row in rows]) for rows in own.values()]
    seen: set[tuple[float, float]] = set()
    for name, rows in own.items():
        places = [(row["confidence"], row["fid"], f"{row['scale']:g}", "normal") for row in rows]
        places = [place for place in places if place[:2] not in seen]
        seen |= {place[:2] for place in places}
        place_labels(axes, places, lines, looks[name]["color"])


def _differences(axes: Any, fronts: Mapping[str, Sequence[Any]], looks: Looks) -> None:
    """Each front minus CFG's, the line at 0, at every level, in per cent of CFG's; 95 % bars."""
    levels = sorted({cell["confidence"] for cells in fronts.values() for cell in cells})
    gap = min(np.diff(levels), default=1.0)
    for place, (name, cells) in enumerate(fronts.items()):
        shift = 0.7 * gap * ((place + 0.5) / len(fronts) - 0.5)
        shares = [100 / cell["cfg"]["fid"] for cell in cells]
        x = [cell["confidence"] + shift for cell in cells]
        y = [cell["cfg"]["difference"] * share for cell, share in zip(cells, shares, strict=True)]
        bars = [cell["cfg"]["error"] * share for cell, share in zip(cells, shares, strict=True)]
        axes.errorbar(x, y, yerr=bars, capsize=2, **{**looks[name], "linestyle": "none"})
    axes.axhline(0, color=next(iter(OKABE_ITO.values())), linewidth=1.3)
    axes.set_xticks(levels, [f"{level:g}" for level in levels])
    axes.set(xlabel=CONFIDENCE, ylabel="FID against CFG's front, %")
    axes.set_title("At equal confidence: minus CFG's front (95 % bars)", fontsize=11)


def _level(fronts: Mapping[str, Sequence[Any]], count: int) -> int | None:
    """The level that most fronts reach, of those the middle one; None: no front has any."""
    reached = [sum(bool(cells[k]) for cells in fronts.values() if cells) for k in range(count)]
    best = [k for k in range(count) if reached[k] == max(reached) and reached[k]]
    return best[len(best) // 2] if best else None


def _costs(axes: Any, cells: Mapping[str, Any], looks: Looks) -> None:
    """FID against evaluations where every method is as sure."""
    there = {name: cell for name, cell in cells.items() if cell}
    work = {name: cell["nfe"] + cell["backward"] for name, cell in there.items()}
    most = max(work.values())
    for name, cell in there.items():
        equal = [other for other in work if work[other] == work[name]]  # stand beside each other
        shift = 0.015 * most * (equal.index(name) - (len(equal) - 1) / 2)
        look = {**looks[name], "markersize": 8}
        axes.errorbar(work[name] + shift, cell["fid"], yerr=cell["fid_error"], capsize=2, **look)
    axes.set_xlim(0, 1.15 * most)
    axes.set(
        xlabel="network evaluations a sample (a backward pass counts as one)",
        ylabel="FID (judge's features)",
    )
    level = next(iter(there.values()))["confidence"]
    axes.set_title(f"What it costs, at confidence {level:g}", fontsize=11)


def _left_out(axes: Any, why: str) -> None:
    axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes)
    axes.set(xticks=[], yticks=[])


def _log(axes: Any) -> None:
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axes.minorticks_off()
    axes.set_ylim(max(low, high / 200), high)
