"""Figures of the trajectories experiment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...pictures.plots import OKABE_ITO
from ..figures import COLOURS, figure, level, outside_legend, style
from ..report import Report
from .measures import MISLEADING, MISLED_AT, SOURCES, Key, Study, displacement
from .nets import LEVELS, MEAN, SCHEDULE, Parts, rectifier, slopes
from .page import BOTH, PANELS, SCALES, SOURCE_NAMES, hundredths
from .paths import Paths

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 14  # trajectories a class in a panel
REACH = 5.0  # single trajectories of a trained network at a large scale go farther: cut
AT = 4.0  # the scale of the figures that show one
LOOKS: dict[str, dict[str, Any]] = {
    "exact": {"color": OKABE_ITO["black"], "marker": "*"},
    "mlp": {"color": COLOURS["cg"], "marker": "D"},
    "linear": {"color": OKABE_ITO["green"], "marker": "v"},
    "cfg": {"color": COLOURS["cfg"], "marker": "o"},
}
DENOISERS = {"exact": "exact denoiser", "learned": "trained denoiser"}
Cell = tuple[Paths, str]


def draw_paths(report: Report, study: Study) -> None:
    """The figures of trajectories."""

    def cell(paths: Paths) -> Cell:
        moved = float(displacement(paths, study.plain).mean())
        return paths, f"D = {hundredths(moved)}"

    def line(denoiser: str, source: str, rectified: bool) -> list[Cell]:
        keys = (Key(denoiser, source, rectified, scale) for scale in PANELS)
        return [cell(study.paths(key)) for key in keys]

    sides = ("cfg", *SOURCES[:3])
    cells = [[cell(study.paths(Key(d, s, False, 1.0))) for s in sides] for d in DENOISERS]
    titles = ("conditional model", *(SOURCE_NAMES[source] for source in sides[1:]))
    report.draw("scale_one", paths_figure(cells, list(DENOISERS.values()), titles))
    sources = {"mlp": "CG, MLP", "linear": "CG, linear", "cfg": "CFG"}
    widest = (study.paths(Key("learned", source, False, PANELS[-1])) for source in sources)
    reach = min(reach_of(widest), REACH)
    for name, rectified in (("trained", False), ("trained_reg", True)):
        cells = [line("learned", source, rectified) for source in sources]
        report.draw(name, paths_figure(cells, list(sources.values()), SCALES, reach=reach))
    cells = [line("exact", "cfg", rectified) for rectified in (False, True)]
    cells.append([cell(study.golden(scale)) for scale in PANELS])
    names = ("CFG = CG, exact", "with REG", "golden")
    report.draw("exact", paths_figure(cells, names, SCALES, reach=reach))
    cells = [
        [cell(study.paths(Key("exact", source, r, scale))) for scale, r in MISLED_AT]
        for source in MISLEADING
    ]
    titles = tuple(f"scale {scale:g}{', REG' if r else ''}" for scale, r in MISLED_AT)
    report.draw("misleading", paths_figure(cells, MISLEADING, titles, boundaries=(0.0, MEAN)))


def draw_measures(report: Report, study: Study) -> None:
    """The figures of what is measured on them."""
    shown = (("exact", "exact"), *(("learned", source) for source in SOURCES[1:]))
    report.draw("displacement", displacement_figure(report.numbers["rows"], study))
    report.draw("densities", densities_figure(study, shown))
    report.draw("slopes", slopes_figure(study.parts))
    report.draw("causes", budget_figure(report.numbers["budget"]))


def paths_figure(
    cells: Sequence[Sequence[Cell]],
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
    size = (2.5 * columns + 0.7, 2.0 * rows + 0.7)
    made, axes = figure(*size, rows, columns, sharex=True, sharey=True)
    for row, line in enumerate(cells):
        for panel, (paths, note) in zip(axes[row], line, strict=True):
            for y in (0, 1):
                looks = {"color": COLOURS[f"class{y}"], "lw": 0.7, "alpha": 0.8}
                panel.plot(paths.times, _shown(paths)[:, y], **looks)
            boundary = 0.0 if boundaries is None else boundaries[row]
            at = [boundary * SCHEDULE(float(t))[0] for t in paths.times]
            panel.plot(paths.times, at, color="black", lw=1.3, ls="--")
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
            place = {"transform": panel.transAxes, "fontsize": 8, "va": "bottom", "zorder": 5}
            panel.text(0.03, 0.03, note, bbox=box, **place)
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


def slopes_figure(parts: Parts) -> Figure:
    """Over t: the logit's slope, the guidance term, and REG's K, exact and of each classifier."""
    made, axes = figure(13, 3.7, 1, 3)
    left, middle, right = axes[0]
    times = torch.tensor([float(t) for t in LEVELS])
    sigma = np.array([SCHEDULE(float(t))[1] for t in times])
    offsets = torch.tensor([[-0.5], [0.0], [0.5]], dtype=torch.float64)
    for kind, label in (("exact", "exact"), ("mlp", "MLP"), ("linear", "linear in (x, t)")):
        look = {**LOOKS[kind], "label": label, "markersize": 4}
        net = parts.classifiers[kind]
        found = torch.stack([slopes(net, offsets, float(t)) for t in times]).numpy()
        left.plot(times, found[:, 1], **look)
        left.fill_between(times, found.min(1), found.max(1), color=look["color"], alpha=0.2, lw=0)
        # At the boundary grad log p(y|x_t) is half the logit's slope.
        middle.plot(times, 0.5 * sigma * found[:, 1], **look)
        right.plot(times, [rectifier(parts, kind, float(t)) for t in times], **look)
    for panel in axes[0]:
        level(panel, color="grey")
        panel.set_xlabel("t (data to noise)")
    left.set_ylabel("slope of the logit at the boundary")
    middle.set_ylabel(r"$\sqrt{1-\bar\alpha_t}\;\nabla \log p(y\,|\,x_t)$ at $x_t=0$")
    right.set_ylabel("mean of K")
    left.legend(frameon=False)
    return made


def displacement_figure(rows: Sequence[Mapping[str, Any]], study: Study) -> Figure:
    """Displacement over scale (exact parts, trained parts), and over t at one scale."""
    made, axes = figure(13, 4.0, 1, 3)

    def plot(panel: Any, wanted: tuple[str, str, bool], **looks: Any) -> None:
        own = [r for r in rows if (r["denoiser"], r["source"], r["rectified"]) == wanted]
        panel.plot([r["scale"] for r in own], [r["displacement"] for r in own], **looks)

    golden = {**style("golden"), "label": "golden (what the target asks)", "zorder": 5}
    for panel, (denoiser, title) in zip(axes[0], DENOISERS.items(), strict=False):
        plot(panel, ("exact", "golden", False), **golden)
        for source, look in LOOKS.items():
            if (denoiser, source) == ("exact", "cfg"):
                continue  # the same lines as CG with the exact classifier
            name = BOTH if denoiser == source == "exact" else SOURCE_NAMES[source]
            plot(panel, (denoiser, source, False), label=name, **look)
            plot(panel, (denoiser, source, True), ls="--", mfc="white", **look)
        panel.plot([], [], color="grey", ls="--", label="dashed: with REG")
        panel.set(xlabel="guidance scale", title=title)
    axes[0, 0].set_ylabel("displacement from the boundary")
    low, high = (of(r["displacement"] for r in rows) for of in (min, max))
    for panel in axes[0, :2]:
        panel.set_ylim(low - 0.1, 1.45 * high)
        panel.legend(frameon=False, fontsize=8, loc="upper left")
    last = axes[0, 2]
    lines = {"cfg": study.paths(Key("exact", "cfg", False, AT))}
    lines |= {"reg": study.paths(Key("exact", "cfg", True, AT)), "golden": study.golden(AT)}
    for method, paths in lines.items():
        look = style(method) | {"markevery": 4}
        last.plot(paths.times, displacement(paths, study.plain), **look)
    last.invert_xaxis()
    last.set(xlabel="t (noise to data)", title=f"over time: exact parts, scale {AT:g}")
    last.legend(frameon=False, fontsize=8)
    for panel in axes[0]:
        level(panel, color="grey")
    return made


def budget_figure(budget: Sequence[Mapping[str, Any]]) -> Figure:
    """Distances between trajectories over scale, one line for each cause; without and with REG."""
    made, axes = figure(10, 3.9, 1, 2, sharey=True)
    causes: dict[str, tuple[dict[str, Any], str]] = {
        "guidance": (LOOKS["cfg"], "guidance itself (all parts exact) against golden"),
        "linear": (LOOKS["linear"], "linear classifier instead of the exact one"),
        "mlp": (LOOKS["mlp"], "MLP classifier instead of the exact one"),
        "network": (
            {"color": OKABE_ITO["blue"], "marker": "s"},
            "trained denoiser instead of the exact one",
        ),
    }
    for panel, rectified in ((axes[0, 0], False), (axes[0, 1], True)):
        own = [r for r in budget if r["rectified"] == rectified]
        for cause, (look, label) in causes.items():
            # 0 has no place on a logarithmic axis; at scale 1 guidance itself is exact
            values = [r[cause] if r[cause] > 1e-6 else np.nan for r in own]
            panel.plot([r["scale"] for r in own], values, label=label, **look)
        panel.set(xlabel="guidance scale", title="CG with REG" if rectified else "CG", yscale="log")
        panel.grid(alpha=0.3)
    axes[0, 0].set_ylabel("distance between trajectories (rms)")
    outside_legend(made, axes[0, 0], "lower center", columns=2)
    return made


def densities_figure(study: Study, columns: Sequence[tuple[str, str]]) -> Figure:
    """Where samples of class 1 end, next to the exact conditional and the tilted target.

    Args:
        columns: (denoiser, source) of each panel.
    """
    made, axes = figure(3.1 * len(columns) + 0.6, 3.3, 1, len(columns), sharex=True)
    grid = torch.linspace(-1.6, 4.2, 400, dtype=torch.float64)[:, None]
    log_class = study.mixture.log_prob(grid, y=1)
    log_target = log_class + (AT - 1) * study.mixture.class_posterior(grid, 1.0, 0.0)[:, 1]
    target = log_target.exp()
    target = target / target.sum() / float(grid[1] - grid[0])
    bins = np.linspace(-1.6, 4.2, 40)
    for panel, (denoiser, source) in zip(axes[0], columns, strict=True):
        for rectified, method, label in ((False, "cfg", "guided"), (True, "reg", "with REG")):
            ends = study.paths(Key(denoiser, source, rectified, AT)).ends[:, 0].clamp(-1.6, 4.2)
            looks = {"alpha": 0.45, "color": COLOURS[method], "label": label}
            panel.hist(ends, bins, density=True, **looks)
        panel.plot(grid, log_class.exp(), color="grey", lw=1.4, label="p(x | y)")
        panel.plot(grid, target, color="black", lw=1.8, label="target")
        panel.axvline(0, color="black", lw=1.0, ls="--")
        panel.set_title(f"{SOURCE_NAMES[source]}\n{DENOISERS[denoiser]}", fontsize=9)
        panel.set_xlabel("sample (own class on the right)")
    axes[0, 0].set_ylabel("density")
    axes[0, -1].legend(frameon=False, fontsize=8)
    return made
