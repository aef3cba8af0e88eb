"""Figures of the `postprocess` experiment, from its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...pictures.plots import OKABE_ITO
from ..figures import figure, level
from ..image_runs import marks
from .claims import PAPER, PAPER_BEFORE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PANELS", "draw_few", "draw_own"]

PANELS = {
    "fid": "FID, lower is better",
    "recall": "recall, higher is better",
    "distance": "distance to these images",
    "nearer": "nearer than unseen images",
    "copies": "share of copies",
}
LOOKS = (("green", "^"), ("vermillion", "o"))  # a guidance scale each


def draw_own(own: Mapping[str, Any]) -> Figure:
    """The paper's curve, ours, and recall, over the flow's own scale; dashed: before the flow."""
    made, axes = figure(12, 3.6, 1, 3)
    rows, look = own["after"], marks("blue", "s", True)
    scales = [row["own"] for row in rows]
    paper, ours, recall = axes[0]
    paper.errorbar(list(PAPER), list(PAPER.values()), **marks("black", "o", True))
    errors = [row["rise"]["error"] for row in rows]
    ours.errorbar(scales, [row["fid"] for row in rows], yerr=errors, **look)
    recall.errorbar(scales, [row["recall"] for row in rows], **look)
    before = own["before"]
    for panel, value, title, name in (
        (paper, PAPER_BEFORE, "paper, CIFAR-10 (App. B.2)", "FID"),
        (ours, before["fid"], "here", "FID (judge's features)"),
        (recall, before["recall"], "here", "recall"),
    ):
        level(panel, value, color=OKABE_ITO["vermillion"], linestyle="--", lw=1.2, label="before")
        panel.set(xlabel="guidance scale of the flow itself", ylabel=name, title=title)
        panel.grid(alpha=0.25)
        panel.legend(frameon=False, fontsize=8)
    return made


def draw_few(few: list[dict[str, Any]]) -> Figure:
    """FID, recall, distance and memorisation over the number of real images; open: before."""
    made, axes = figure(15, 3.6, 1, len(PANELS))
    counts = sorted({row["real"] for row in few})
    scales = list(dict.fromkeys(row["scale"] for row in few))
    for panel, (key, name) in zip(axes[0], PANELS.items(), strict=True):
        for (colour, marker), scale in zip(LOOKS, scales, strict=True):
            rows = [row for row in few if row["scale"] == scale]
            for when, filled in (("before", False), ("after", True)):
                values = [row[key][when] for row in rows]
                errors = [row[key]["error"] for row in rows] if filled else None
                label = f"CFG {scale:g}, {when}"
                at = [row["real"] for row in rows]
                panel.errorbar(
                    at, values, yerr=errors, label=label, **marks(colour, marker, filled)
                )
        panel.set(title=name, xlabel="real images of the flow")
        panel.title.set_fontsize(10)
        panel.set_xscale("log")
        panel.set_xticks(counts, [f"{count:,}" for count in counts])
        panel.minorticks_off()
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.25)
    level(axes[0, 3], 0.5, linestyle=":", color="black")
    axes[0, 0].legend(frameon=False, fontsize=8)
    return made
