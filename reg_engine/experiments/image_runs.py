"""How samples of the image experiments are shown, and their pages wrapped."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..pictures.images import grid, to_uint8
from ..pictures.plots import OKABE_ITO
from .figures import figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


GAP = 2  # pixels between two images


def marks(colour: str, marker: str, rectified: bool) -> dict[str, Any]:
    """Keywords of `Axes.errorbar`. Open marks: without REG; filled marks: with REG."""
    return {
        "color": OKABE_ITO[colour],
        "marker": marker,
        "markerfacecolor": OKABE_ITO[colour] if rectified else "white",
        "linestyle": "-" if rectified else "--",
        "linewidth": 1.2,
        "markersize": 6,
        "elinewidth": 0.8,
        "capsize": 2,
    }


def draw_samples(
    rows: Mapping[str, Tensor], columns: int = 20, names: Sequence[str] = ()
) -> Figure:
    """One line of images a set: the same seeds below each other; above them the names of their
    labels, which follow each other in turn."""
    longest = max(map(len, names), default=0)
    made, axes = figure(columns * 0.39 + 3.1, 0.5 * len(rows) + 0.2 + 0.05 * longest, len(rows))
    for panel, (name, samples) in zip(axes[:, 0], rows.items(), strict=True):
        panel.imshow(
            grid(to_uint8(samples[:columns]), columns, GAP).squeeze(-1).numpy(), cmap="gray"
        )
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
        panel.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    if names:
        step = next(iter(rows.values())).shape[-1] + GAP
        places = [GAP + step * (column + 0.5) - GAP / 2 for column in range(columns)]
        above = [names[column % len(names)] for column in range(columns)]
        turned = {"rotation": 45, "ha": "left", "rotation_mode": "anchor"} if longest > 2 else {}
        axes[0, 0].set_xticks(places, above, fontsize=7, **turned)
        axes[0, 0].tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    return made


def wrapped(text: str) -> str:
    """Paragraphs of Markdown in lines of at most 100 columns; a list's items stay apart."""
    parts = []
    for paragraph in text.strip().split("\n\n"):
        items = [" ".join(item.split()) for item in paragraph.split("\n* ")]
        items = items[:1] + [f"* {item}" for item in items[1:]]
        indent = "  " if paragraph.startswith("* ") or len(items) > 1 else ""
        filled = [
            textwrap.fill(item, 100, subsequent_indent=indent, break_on_hyphens=False)
            for item in items
        ]
        parts.append("\n".join(filled))
    return "\n\n".join(parts)
