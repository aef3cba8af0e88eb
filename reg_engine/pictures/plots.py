"""Plots (matplotlib, from the `eval` extra): colour-blind safe, one meaning a colour and marker."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..profiling import ranges
from ..storage.files import replacing

if TYPE_CHECKING:
    from ..profiling.report import Line, Span

__all__ = ["OKABE_ITO", "check_matplotlib", "save_figure", "save_profile"]

# Colours that people with any colour vision tell apart (Okabe & Ito 2008).
OKABE_ITO = {
    "vermillion": "#D55E00",
    "blue": "#0072B2",
    "green": "#009E73",
    "purple": "#CC79A7",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "yellow": "#B8A900",  # darker than theirs, which cannot be seen on white
    "grey": "#7F7F7F",
    "black": "#000000",
}


def save_profile(spans: Sequence[Span], rows: Sequence[Line], path: Path) -> None:
    """Two panels: the ranges of a few steps over time, and what each range takes in all.

    Args:
        spans, rows: of profiling.spans_of and rows_of, not empty.
        path: the PNG to write, whole or not at all.

    Raises:
        InputError: matplotlib is not installed.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2 + 0.32 * len(rows)), dpi=120, layout="constrained")
    depth = max(len(row.path) for row in rows)
    above, below = figure.subplots(
        2, 1, gridspec_kw={"height_ratios": [0.45 * depth, 0.32 * len(rows)]}
    )
    _flames(above, spans)
    places = range(len(rows))
    colors = [_color(row.path[-1]) for row in rows]
    below.barh(places, [row.total for row in rows], color=colors, alpha=0.35)
    below.barh(places, [row.own for row in rows], color=colors)
    for place, row in zip(places, rows, strict=True):
        text = f" {row.total:.1f} ms, {row.share:.1%}; own {row.own:.1f} ms"
        below.text(row.total, place, text, va="center", fontsize=8)
    below.set_yticks(places, ["    " * (len(row.path) - 1) + row.path[-1] for row in rows])
    for label in below.get_yticklabels():
        label.set_horizontalalignment("left")
    below.tick_params(axis="y", pad=110, length=0)
    below.invert_yaxis()
    below.set_xlim(0, 1.3 * max(row.total for row in rows))
    below.set(xlabel="ms in all (full colour: outside the ranges in it)")
    for axes in (above, below):
        axes.spines[["top", "right", "left"]].set_visible(False)
    save_figure(figure, path)


def _flames(axes: Any, spans: Sequence[Span], steps: int = 3) -> None:
    """The ranges around the middle `steps` evaluations, one row a depth."""
    marks = [span for span in spans if span.path[-1] in ("evaluate", "replay")] or list(spans)
    first = max(0, (len(marks) - steps) // 2)
    start, end = marks[first].start, marks[min(first + steps, len(marks) - 1)].start
    end = end if end > start else marks[-1].end
    for span in spans:
        left, right = max(span.start, start), min(span.end, end)
        if right <= left:
            continue
        level, name = len(span.path) - 1, span.path[-1]
        axes.barh(
            level,
            right - left,
            left=left,
            height=0.92,
            color=_color(name),
            edgecolor="white",
            lw=0.5,
        )
        if (right - left) > 0.012 * len(name) * (end - start):
            ink = "white" if name == "evaluate" else "black"
            axes.text(
                (left + right) / 2, level, name, ha="center", va="center", fontsize=8, color=ink
            )
    axes.set(
        xlim=(start, end),
        yticks=[],
        xlabel="ms since the start of the section",
        title=f"{min(steps, len(marks))} of {len(marks)} {marks[0].path[-1]} ranges",
    )
    axes.invert_yaxis()


def _color(name: str) -> str:
    found = getattr(ranges, name, None)
    return f"#{found.color:06X}" if isinstance(found, ranges.Range) else "#999999"


def check_matplotlib() -> None:
    """Raise InputError if matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("plot", "matplotlib is not installed", "pip install 'reg-engine[eval]'")


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with replacing(path) as file:
        figure.savefig(file, format="png")
