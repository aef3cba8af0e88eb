"""Figures of the experiment `distill`, from its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...pictures.plots import OKABE_ITO
from ..figures import figure, level, outside_legend
from . import mixture, subject
from .claims import settings_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_fronts", "draw_plane"]

# Colour by family, marker within it.
_PLANE = {
    "unguided": ("grey", "x"),
    "cfg": ("vermillion", "o"),
    "interval": ("green", "^"),
    "low": ("green", "v"),
    "lazy": ("sky", "<"),
    "alternate": ("sky", ">"),
    "lazy_blend": ("purple", "H"),
    "vjp": ("blue", "D"),
    "rayleigh": ("orange", "s"),
    "golden": ("yellow", "*"),
    "student_golden": ("black", "*"),
    "student_vjp": ("black", "D"),
    "student_rayleigh": ("black", "s"),
}
_IMAGES = {
    "cfg": ("vermillion", "o"),
    "interval": ("green", "^"),
    "alternate": ("sky", ">"),
    "lazy": ("sky", "<"),
    "vjp": ("blue", "D"),
    "damping": ("orange", "s"),
    "student": ("black", "*"),
}


def draw_plane(numbers: Mapping[str, Any]) -> Figure:
    """Energy distance in floors against evaluations a sample, a panel for each weight; a line joins
    one method's numbers of steps."""
    weights = numbers["weights"]
    made, panels = figure(13, 5.2, 1, len(weights), sharey=True)
    for column, axes in enumerate(panels[0]):
        floor = float(numbers["floor"][column])
        for method, found in numbers["methods"].items():
            colour, marker = _PLANE[method]
            axes.errorbar(
                [float(cost) for cost in found["cost"]],
                [float(row[column]) / floor for row in found["distance"]],
                yerr=[float(row[column]) / floor for row in found["deviation"]],
                marker=marker,
                color=OKABE_ITO[colour],
                ms=9 if marker == "*" else 6,
                lw=1.6 if colour == "black" else 0.8,
                label=mixture.METHODS[method].replace("`", ""),
            )
        level(axes, 1.0, ls=":")
        axes.set(xscale="log", yscale="log", title=f"w = {weights[column]:g}")
        axes.set_xticks([8, 16, 32, 64, 128])
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.minorticks_off()
    outside_legend(made, panels[0, 0], columns=5)
    made.supxlabel("evaluations and backward passes a sample (F)")
    panels[0, 0].set_ylabel("energy distance to the target, in floors")
    return made


def draw_fronts(numbers: Mapping[str, Any]) -> Figure:
    """FID against confidence over scales, a panel for each solver and number of steps."""
    settings, named = settings_of(numbers), subject.titles(numbers["teacher"])
    made, panels = figure(3.6 * len(settings) + 1, 4.6, 1, len(settings), sharey=True, sharex=True)
    for (solver, steps), axes in zip(settings, panels[0], strict=True):
        rows = [r for r in numbers["points"] if (r["solver"], r["steps"]) == (solver, steps)]
        start = [row for row in rows if row["method"] == "unguided"]
        for method, (colour, marker) in _IMAGES.items():
            line = [row for row in rows if row["method"] == method]
            if not line:
                continue
            line = start + line
            axes.errorbar(
                [row["confidence"] for row in line],
                [row["fid"] for row in line],
                xerr=[row["confidence_error"] for row in line],
                yerr=[row["fid_error"] for row in line],
                marker=marker,
                color=OKABE_ITO[colour],
                ms=9 if marker == "*" else 5,
                lw=1.6 if method == "student" else 0.9,
                elinewidth=0.6,
                label=named[method].replace("`", ""),
            )
        axes.set_title(f"{solver}, {steps} steps")
    outside_legend(made, panels[0, 0], columns=7)
    made.supxlabel("confidence: mean log-odds of the label")
    panels[0, 0].set_ylabel("FID (judge's features), lower is better")
    return made
