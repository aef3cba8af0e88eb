"""The fronts of a reproduction: FID against inception or CLIP score, a panel a method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .plots import OKABE_ITO, check_matplotlib, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_reproduction", "save_reproduction"]

AXES = {"is": "inception score", "clip": "CLIP score"}


def save_reproduction(report: Mapping[str, Any], path: Path) -> None:
    """Write draw_reproduction(report) as PNG, whole or not at all; raises as it."""
    save_figure(draw_reproduction(report), path)


def draw_reproduction(report: Mapping[str, Any]) -> Figure:
    """A panel a method, a line an estimator, the largest scale beside its mark; as the paper's
    Figs. 3 and 4.

    Args:
        report: of `reg-engine reproduce`: points, title.

    Raises:
        InputError: matplotlib is not installed.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    points: Sequence[Any] = report["points"]
    score = next((name for name in AXES if name in points[0]), None)
    methods = list(dict.fromkeys(point["method"] for point in points))
    estimators = list(dict.fromkeys(point["rectify"] for point in points))
    figure = Figure(figsize=(max(5.5, 3.4 * len(methods)), 4), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(methods), sharex=True, sharey=True, squeeze=False)[0]
    for axes, method in zip(panels, methods, strict=True):
        for name, colour, marker in zip(estimators, cycle(OKABE_ITO.values()), cycle("osD^v<>P")):
            rows = [p for p in points if (p["method"], p["rectify"]) == (method, name)]
            x = [row[score]["mean"] if score else row["scale"] for row in rows]
            y = [row["fid"]["value"] for row in rows]
            label = "CFG" if name == "none" else f"REG ({name})"
            axes.plot(x, y, color=colour, marker=marker, markersize=4.5, linewidth=1.3, label=label)
            if score and rows:
                place = {"xytext": (4, 4), "textcoords": "offset points"}
                text = f"{rows[-1]['scale']:g}"
                axes.annotate(text, (x[-1], y[-1]), fontsize=8, color=colour, **place)
        axes.set_title(method, fontsize=11)
        axes.set(xlabel=AXES[score] if score else "guidance scale")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set(ylabel="FID, lower is better")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=len(estimators), frameon=False)
    scales = ", ".join(f"{scale:g}" for scale in sorted({p["scale"] for p in points}))
    title = f"{report['title']}, {report['samples']:,} samples a point; scales {scales}"
    figure.suptitle(title, fontsize=11)
    return figure
