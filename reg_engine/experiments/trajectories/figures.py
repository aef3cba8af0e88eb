"""Figures of the trajectories experiment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...pictures.plots import OKABE_ITO
from ..figures import COLOURS, figure, style
from .measures import Key, Study, displacement
from .nets import LEVELS, SCHEDULE, Parts, rectifier, slopes
from .paths import Paths

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "SOURCE_NAMES",
    "budget_figure",
    "densities_figure",
    "displacement_figure",
    "paths_figure",
    "reach_of",
    "slopes_figure",
]

SOURCE_NAMES = {
    "exact": "CG, exact classifier",
    "mlp": "CG, MLP classifier",
    "linear": "CG, linear classifier",
    "cfg": "CFG",
}
SHOWN = 14  # trajectories a class in a panel
_SOURCE_STYLES: dict[str, dict[str, Any]] = {
    "exact": {"color": OKABE_ITO["black"], "marker": "*"},
    "mlp": {"color": COLOURS["cg"], "marker": "D"},
    "linear": {"color": OKABE_ITO["green"], "marker": "v"},
    "cfg": {"color": COLOURS["cfg"], "marker": "o"},
}


def paths_figure(
    cells: Sequence[Sequence[tuple[Paths, str]]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    boundaries: Sequence[float] | None = None,
    reach: float | None = None,
) -> Figure:
    """Trajectories x_t over t, noise on the left.

    Args:
        cells: (rows, columns) of trajectories and a note for the panel's lower corner.
        row_labels, column_labels: what a row and a column is.
        boundaries: of each row, the classifier's boundary in x_0 (at x_t it is alpha_t times that);
            None = 0.
        reach: the panels show [-reach, reach]; None = as far as these trajectories go.
    """
    rows, columns = len(cells), len(cells[0])
    made, axes = figure(
        2.5 * columns + 0.7, 2.0 * rows + 0.7, rows, columns, sharex=True, sharey=True
    )
    for row, line in enumerate(cells):
        for column, (paths, note) in enumerate(line):
            panel = axes[row, column]
            _draw_paths(panel, paths)
            boundary = 0.0 if boundaries is None else boundaries[row]
            level = [boundary * SCHEDULE(float(t))[0] for t in paths.times]
            panel.plot(paths.times, level, color="black", lw=1.3, ls="--")
            panel.text(
                0.03, 0.03, note, transform=panel.transAxes, fontsize=8, va="bottom", zorder=5,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
            )  # fmt: skip
        axes[row, 0].set_ylabel(f"{row_labels[row]}\n$x_t$", fontsize=9)
    for column, label in enumerate(column_labels):
        axes[0, column].set_title(label, fontsize=10)
        axes[-1, column].set_xlabel("t (noise to data)", fontsize=9)
    top = reach or reach_of(paths for line in cells for paths, _ in line)
    axes[0, 0].set(xlim=(float(cells[0][0][0].times[0]), -1), ylim=(-top, top))
    return made


def reach_of(several: Iterable[Paths]) -> float:
    """The largest |x_t| that any of these trajectories shows, and a margin."""
    return 1.08 * max(float(_shown(paths).abs().max()) for paths in several)


def _shown(paths: Paths) -> Tensor:
    """The trajectories that are drawn, (R + 1, 2, about SHOWN)."""
    every = max(1, paths.signed.shape[2] // SHOWN)
    return paths.x[:, :, every // 2 :: every]


def _draw_paths(panel: Any, paths: Paths) -> None:
    for label, name in ((0, "class0"), (1, "class1")):
        panel.plot(paths.times, _shown(paths)[:, label], color=COLOURS[name], lw=0.7, alpha=0.8)


def slopes_figure(parts: Parts) -> Figure:
    """Over t: the logit's slope, the guidance term, and REG's K, exact and of each classifier."""
    made, axes = figure(13, 3.7, 1, 3)
    left, middle, right = axes[0]
    times = torch.tensor([float(t) for t in LEVELS])
    sigma = np.array([SCHEDULE(float(t))[1] for t in times])
    offsets = torch.tensor([[-0.5], [0.0], [0.5]], dtype=torch.float64)
    for kind, label in (("exact", "exact"), ("mlp", "MLP"), ("linear", "linear in (x, t)")):
        look = {**_SOURCE_STYLES[kind], "label": label, "markersize": 4}
        net = parts.classifiers[kind]
        found = torch.stack([slopes(net, offsets, float(t)) for t in times]).numpy()
        left.plot(times, found[:, 1], **look)
        left.fill_between(times, found.min(1), found.max(1), color=look["color"], alpha=0.2, lw=0)
        # At the boundary grad log p(y|x_t) is half the logit's slope.
        middle.plot(times, 0.5 * sigma * found[:, 1], **look)
        right.plot(times, [rectifier(parts, kind, float(t)) for t in times], **look)
    for panel in axes[0]:
        panel.axhline(0, color="grey", lw=0.8)
        panel.set_xlabel("t (data to noise)")
    left.set_ylabel("slope of the logit at the boundary")
    middle.set_ylabel(r"$\sqrt{1-\bar\alpha_t}\;\nabla \log p(y\,|\,x_t)$ at $x_t=0$")
    right.set_ylabel("mean of K")
    left.legend(frameon=False)
    return made


def displacement_figure(rows: Sequence[Mapping[str, Any]], study: Study, scale: float) -> Figure:
    """Displacement over scale (exact parts, trained parts), and over t at one scale."""
    made, axes = figure(13, 4.0, 1, 3)
    for panel, denoiser, title in (
        (axes[0, 0], "exact", "exact denoiser"),
        (axes[0, 1], "learned", "trained denoiser"),
    ):
        golden = [r for r in rows if r["source"] == "golden"]
        panel.plot(
            [r["scale"] for r in golden],
            [r["displacement"] for r in golden],
            **{**style("golden"), "label": "golden (what the target asks)", "zorder": 5},
        )
        for source, look in _SOURCE_STYLES.items():
            if denoiser == "exact" and source == "cfg":
                continue  # the same lines as CG with the exact classifier
            for rectified in (False, True):
                own = [
                    r
                    for r in rows
                    if (r["denoiser"], r["source"], r["rectified"]) == (denoiser, source, rectified)
                ]
                name = SOURCE_NAMES[source]
                if denoiser == "exact" and source == "exact":
                    name = "CFG = CG, exact classifier"
                panel.plot(
                    [r["scale"] for r in own],
                    [r["displacement"] for r in own],
                    ls="--" if rectified else "-",
                    mfc="white" if rectified else None,
                    label=None if rectified else name,
                    **look,
                )
        panel.plot([], [], color="grey", ls="--", label="dashed: with REG")
        panel.set(xlabel="guidance scale", title=title)
        panel.axhline(0, color="grey", lw=0.8)
    axes[0, 0].set_ylabel("displacement from the boundary")
    low = min(r["displacement"] for r in rows) - 0.1
    for panel in axes[0, :2]:
        panel.set_ylim(low, max(r["displacement"] for r in rows) * 1.45)
        panel.legend(frameon=False, fontsize=8, loc="upper left")
    _over_time(axes[0, 2], study, scale)
    return made


def _over_time(panel: Any, study: Study, scale: float) -> None:
    lines = {
        "cfg": study.paths(Key("exact", "cfg", False, scale)),
        "reg": study.paths(Key("exact", "cfg", True, scale)),
        "golden": study.golden(scale),
    }
    for method, paths in lines.items():
        look = style(method) | {"markevery": 4}
        panel.plot(paths.times, displacement(paths, study.plain), **look)
    panel.axhline(0, color="grey", lw=0.8)
    panel.invert_xaxis()
    panel.set(xlabel="t (noise to data)", title=f"over time: exact parts, scale {scale:g}")
    panel.legend(frameon=False, fontsize=8)


def budget_figure(budget: Sequence[Mapping[str, Any]]) -> Figure:
    """Distances between trajectories over scale, one line for each cause; without and with REG."""
    made, axes = figure(10, 3.9, 1, 2, sharey=True)
    looks: dict[str, dict[str, Any]] = {
        "guidance": {"color": OKABE_ITO["vermillion"], "marker": "o"},
        "linear": _SOURCE_STYLES["linear"],
        "mlp": _SOURCE_STYLES["mlp"],
        "network": {"color": OKABE_ITO["blue"], "marker": "s"},
    }
    labels = {
        "guidance": "guidance itself (all parts exact) against golden",
        "linear": "linear classifier instead of the exact one",
        "mlp": "MLP classifier instead of the exact one",
        "network": "trained denoiser instead of the exact one",
    }
    for panel, rectified in ((axes[0, 0], False), (axes[0, 1], True)):
        own = [r for r in budget if r["rectified"] == rectified]
        for cause, look in looks.items():
            panel.plot(
                [r["scale"] for r in own],
                # 0 has no place on a logarithmic axis; at scale 1 guidance itself is exact
                [r[cause] if r[cause] > 1e-6 else np.nan for r in own],
                label=labels[cause],
                **look,
            )
        panel.set(xlabel="guidance scale", title="CG with REG" if rectified else "CG", yscale="log")
        panel.grid(alpha=0.3)
    axes[0, 0].set_ylabel("distance between trajectories (rms)")
    made.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False
    )
    return made


def densities_figure(study: Study, scale: float, columns: Sequence[tuple[str, str]]) -> Figure:
    """Where samples of class 1 end, next to the exact conditional and the tilted target.

    Args:
        columns: (denoiser, source) of each panel.
    """
    made, axes = figure(3.1 * len(columns) + 0.6, 3.3, 1, len(columns), sharex=True, sharey=True)
    grid = torch.linspace(-1.6, 4.2, 400, dtype=torch.float64)[:, None]
    log_class = study.mixture.log_prob(grid, y=1)
    log_target = log_class + (scale - 1) * study.mixture.class_posterior(grid, 1.0, 0.0)[:, 1]
    target = log_target.exp()
    target = target / target.sum() / float(grid[1] - grid[0])
    bins = np.linspace(-1.6, 4.2, 40)
    for panel, (denoiser, source) in zip(axes[0], columns, strict=True):
        for rectified, method in ((False, "cfg"), (True, "reg")):
            ends = study.paths(Key(denoiser, source, rectified, scale)).ends[:, 0]
            panel.hist(
                ends.clamp(-1.6, 4.2), bins, density=True, alpha=0.45, color=COLOURS[method],
                label="with REG" if rectified else "guided",
            )  # fmt: skip
        panel.plot(grid, log_class.exp(), color="grey", lw=1.4, label="p(x | y)")
        panel.plot(grid, target, color="black", lw=1.8, label="target")
        panel.axvline(0, color="black", lw=1.0, ls="--")
        kind = "exact denoiser" if denoiser == "exact" else "trained denoiser"
        panel.set(xlabel="sample (own class on the right)", title=f"{SOURCE_NAMES[source]}\n{kind}")
        panel.title.set_fontsize(9)
    axes[0, 0].set_ylabel("density")
    axes[0, -1].legend(frameon=False, fontsize=8)
    return made
