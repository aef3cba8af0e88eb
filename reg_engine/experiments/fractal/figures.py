"""Figures of the fractal experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...pictures.plots import OKABE_ITO
from ..figures import COLOURS, figure
from .measures import mean_of
from .models import METHODS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {"cfg": "CFG", "cg": "CG, linear classifier"}
REACH = 1.6  # of the panels: some samples at large scales lie outside
SHOWN = 1500  # points of a class in a panel
COLUMNS = {
    "before": "plain guidance",
    "one": "plain, postprocessed",
    "reg": "REG",
    "reg_post": "REG, postprocessed",
}
STAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "before": ("before", {"color": OKABE_ITO["vermillion"], "marker": "o"}),
    "dedicated": ("postprocessed, dedicated", {"color": OKABE_ITO["green"], "marker": "^"}),
    "one": ("postprocessed, one-for-all", {"color": OKABE_ITO["orange"], "marker": "v"}),
    "reg": ("REG", {"color": OKABE_ITO["blue"], "marker": "s"}),
    "reg_post": (
        "REG, postprocessed",
        {"color": OKABE_ITO["sky"], "marker": "D", "linestyle": "--"},
    ),
}
CURVES = {
    "distance": "mean distance to nearest\nreal point of the class (x 100)",
    "energy": "energy distance\nto the class",
    "recall": "recall",
}

Stages = Mapping[float, Mapping[str, Tensor]]  # scale -> stage -> (2, n, 2)
Panels = Sequence[tuple[Sequence[Tensor] | Tensor, str]]  # points of both classes, title
Boundaries = Mapping[str, Tensor]  # method -> two points (2, 2) of a line


def clouds(
    real: Tensor, boundaries: Boundaries, found: Mapping[str, Stages], scales: Sequence[float]
) -> Figure:
    """Real data, then samples before and after their dedicated flow at each scale; CG and CFG."""
    names = {"before": "before", "dedicated": "after"}
    return _draw_panels(
        2.0,
        boundaries,
        {
            method: [(real, "real data")]
            + [
                (found[method][scale][key], f"scale {scale:g}, {name}")
                for scale in scales
                for key, name in names.items()
            ]
            for method in METHODS
        },
    )


def rectified(
    boundaries: Boundaries,
    found: Mapping[str, Stages],
    targets: Mapping[str, Sequence[Tensor]],
    scale: float,
) -> Figure:
    """At one scale: what guidance aims at, samples, postprocessed ones, REG's; CG and CFG."""
    return _draw_panels(
        2.5,
        boundaries,
        {
            method: [(targets[method], "target")]
            + [(found[method][scale][key], title) for key, title in COLUMNS.items()]
            for method in METHODS
        },
    )


def _draw_panels(size: float, boundaries: Boundaries, rows: Mapping[str, Panels]) -> Figure:
    """A row a method, CG above; dashed: where both classes are equally probable."""
    columns = len(rows["cfg"])
    drawn, axes = figure(size * columns, 2.1 * size, 2, columns, sharex=True, sharey=True)
    for line, method in zip(axes, reversed(METHODS), strict=True):
        line[0].set_ylabel(NAMES[method])
        for axis, (cloud, title) in zip(line, rows[method], strict=True):
            for label, points in enumerate(cloud):
                look = {"s": 1.2, "linewidths": 0, "rasterized": True}
                axis.scatter(*points[:SHOWN].T.numpy(), color=COLOURS[f"class{label}"], **look)
            axis.plot(*boundaries[method].T.numpy(), color="black", linewidth=0.8, linestyle="--")
            limits = (-REACH, REACH)
            axis.set(xlim=limits, ylim=limits, aspect="equal", xticks=[], yticks=[])
            if method == "cg":
                axis.set_title(title, fontsize=10)
    return drawn


def curves(numbers: Mapping[str, Any]) -> Figure:
    """Measures over the scale, one row each: averages of the classes, CG beside CFG."""
    drawn, axes = figure(10, 3.3 * len(CURVES), len(CURVES), 2, sharex=True, sharey="row")
    for row, (measure, title) in zip(axes, CURVES.items(), strict=True):
        row[0].set_ylabel(title)
        for axis, method in zip(row, reversed(METHODS), strict=True):
            table = numbers["methods"][method]
            for stage, (label, look) in STAGES.items():
                there = [scale for scale in table if stage in table[scale]]
                values = [mean_of(table[scale][stage], measure) for scale in there]
                axis.plot([float(scale) for scale in there], values, label=label, **look)
            floor = mean_of(numbers["floor"], measure)
            axis.axhline(floor, color="black", linestyle=":", label="fresh real points")
            axis.set_xscale("log", base=2)
            axis.set_yscale("linear" if measure == "recall" else "log")
            ticks = [float(scale) for scale in table]
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.minorticks_off()
            axis.grid(alpha=0.25)
    for axis, method in zip(axes[0], reversed(METHODS), strict=True):
        axis.set_title(NAMES[method])
    for axis in axes[-1]:
        axis.set_xlabel("guidance scale")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return drawn
