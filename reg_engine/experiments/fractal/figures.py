"""Figures of the fractal experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...pictures.plots import OKABE_ITO
from ..figures import COLOURS, figure
from .measures import mean_of
from .models import METHODS, Data, Models

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["NAMES", "STAGES", "clouds", "curves", "rectified"]

NAMES = {"cfg": "CFG", "cg": "CG, linear classifier"}
REACH = 1.6  # of the panels: some samples at large scales lie outside
SHOWN = 1500  # points of a class in a panel
COLUMN = {"before": "before", "dedicated": "after", "one": "after, one-for-all"}
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

Panel = tuple[Sequence[Tensor] | Tensor, str]
Stages = Mapping[float, Mapping[str, Tensor]]  # scale -> stage -> (2, n, 2)


def clouds(
    data: Data, models: Models, found: Mapping[str, Stages], scales: Sequence[float]
) -> Figure:
    """Real data, then samples before and after their dedicated flow at each scale; CG and CFG."""
    drawn, axes = figure(
        2.0 * (1 + 2 * len(scales)), 4.2, 2, 1 + 2 * len(scales), sharex=True, sharey=True
    )
    for row, method in zip(axes, reversed(METHODS), strict=True):
        panels: list[Panel] = [(data.fresh, "real data")]
        for scale in scales:
            stages = found[method][scale]
            panels += [
                (stages[key], f"scale {scale:g}, {COLUMN[key]}") for key in ("before", "dedicated")
            ]
        _row(row, panels, models, method)
    return drawn


def rectified(
    models: Models,
    found: Mapping[str, Stages],
    targets: Mapping[str, Sequence[Tensor]],
    scale: float,
) -> Figure:
    """At one scale: what guidance aims at, samples, postprocessed ones, REG's; CG and CFG."""
    titles = {
        "before": "plain guidance",
        "one": "plain, postprocessed",
        "reg": "REG",
        "reg_post": "REG, postprocessed",
    }
    drawn, axes = figure(12.5, 5.1, 2, 5, sharex=True, sharey=True)
    for row, method in zip(axes, reversed(METHODS), strict=True):
        panels: list[Panel] = [(targets[method], "target")]
        panels += [(found[method][scale][key], title) for key, title in titles.items()]
        _row(row, panels, models, method)
    return drawn


def curves(numbers: Mapping[str, Any], measures: Mapping[str, str]) -> Figure:
    """Measures over the scale, one row each: averages of the classes, CG beside CFG."""
    drawn, axes = figure(10, 3.3 * len(measures), len(measures), 2, sharex=True, sharey="row")
    for row, (measure, title) in zip(axes, measures.items(), strict=True):
        for axis, method in zip(row, reversed(METHODS), strict=True):
            table = numbers["methods"][method]
            for stage, (label, look) in STAGES.items():
                there = [scale for scale in table if stage in table[scale]]
                values = [mean_of(table[scale][stage], measure) for scale in there]
                axis.plot([float(scale) for scale in there], values, label=label, **look)
            if measure != "energy_target":
                floor = mean_of(numbers["floor"], measure)
                axis.axhline(floor, color="black", linestyle=":", label="fresh real points")
            axis.set_xscale("log", base=2)
            axis.set_yscale("log" if measure not in ("recall", "precision") else "linear")
            ticks = [float(scale) for scale in table]
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.minorticks_off()
            axis.grid(alpha=0.25)
        row[0].set_ylabel(title)
    for axis, method in zip(axes[0], reversed(METHODS), strict=True):
        axis.set_title(NAMES[method])
    for axis in axes[-1]:
        axis.set_xlabel("guidance scale")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return drawn


def _row(row: Sequence[Any], panels: Sequence[Panel], models: Models, method: str) -> None:
    for axis, (cloud, title) in zip(row, panels, strict=True):
        _scatter(axis, cloud, models, method)
        if method == "cg":
            axis.set_title(title, fontsize=10)
    row[0].set_ylabel(NAMES[method])


def _scatter(axis: Any, cloud: Tensor | Sequence[Tensor], models: Models, method: str) -> None:
    for label, points in enumerate(cloud):
        axis.scatter(
            *points[:SHOWN].T.numpy(),
            s=0.6,
            linewidths=0,
            color=COLOURS[f"class{label}"],
            rasterized=True,
        )
    axis.plot(*_boundary(models, method), color="black", linewidth=0.8, linestyle="--")
    axis.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal", xticks=[], yticks=[])


def _boundary(models: Models, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Where both classes are equally probable, for clean data: a line in both cases.

    CFG: the data's own, the falling diagonal, by the trees' symmetry. CG: the linear classifier's.
    """
    x = np.array([-2 * REACH, 2 * REACH])
    if method == "cfg":
        return x, -x
    ends = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    logits = models.logits(ends)
    offset, along_x, along_y = (logits[:, 1] - logits[:, 0]).double().tolist()
    return x, -(offset + (along_x - offset) * x) / (along_y - offset)
