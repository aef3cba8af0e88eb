"""Figures of the `mnist` experiment. Open marks: without REG; filled marks: with REG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...pictures.images import grid, to_uint8
from ...pictures.plots import OKABE_ITO
from ..figures import figure
from .fronts import Front, front_of
from .grid import CLASSIFIER_METHODS, METHODS
from .measures import Measured
from .post import SPACES, After

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_estimators", "draw_fronts", "draw_post", "draw_samples", "draw_scales"]

LOOKS = {
    "vanilla": ("vermillion", "o"),
    "interval": ("green", "^"),
    "autoguidance": ("black", ">"),
    "cosine": ("yellow", "<"),
    "linear": ("sky", "v"),
    "cg": ("purple", "D"),
    "cg-linear": ("orange", "s"),
}
SPACE_LOOKS = {"pixels": ("green", "^"), "features": ("sky", "v")}
SCALES = (1, 2, 3, 5, 8, 16, 32)  # ticks
SURE = "confidence: mean log-odds of the label"


def _look(colour: str, marker: str, rectified: bool) -> dict[str, Any]:
    inside = OKABE_ITO[colour] if rectified else "white"
    return {
        "color": OKABE_ITO[colour],
        "marker": marker,
        "markerfacecolor": inside,
        "linestyle": "-" if rectified else "--",
        "linewidth": 1.2,
        "markersize": 6,
        "elinewidth": 0.8,
        "capsize": 2,
    }


def _draw_front(axes: Any, front: Front, look: dict[str, Any], label: str, side: int) -> None:
    rows = [m.row for m in front.points]
    x, y = [r["confidence"] for r in rows], [r["fid"] for r in rows]
    errors = {"yerr": [r["fid_error"] for r in rows], "xerr": [r["confidence_error"] for r in rows]}
    axes.errorbar(x, y, **errors, label=label, **look)
    for row in rows:
        if row["scale"] < 2 and row["method"] not in ("vanilla", *CLASSIFIER_METHODS):
            continue  # they lie on top of each other
        axes.annotate(
            f"{row['scale']:g}",
            (row["confidence"], row["fid"]),
            textcoords="offset points",
            xytext=(-5 * side, 4 * side),
            ha="right" if side > 0 else "left",
            va="bottom" if side > 0 else "top",
            fontsize=7,
            color=look["color"],
        )


def draw_fronts(measured: Sequence[Measured], real: float) -> Figure:
    """A panel a method: FID against confidence over its scales, without and with REG.

    Args:
        measured: all points.
        real: confidence of real test images, a dotted line.
    """
    made, axes = figure(15, 7.4, 2, 4)
    plain = front_of(measured, "vanilla", False)
    for panel, method in zip(axes.flat, LOOKS, strict=False):
        if method != "vanilla" and plain is not None:
            rows = [m.row for m in plain.points]
            x, y = [r["confidence"] for r in rows], [r["fid"] for r in rows]
            panel.plot(x, y, color="#bbbbbb", linewidth=3, zorder=0, label="CFG")
        for rectified in (False, True):
            front = front_of(measured, method, rectified)
            if front is not None:
                label = "with REG" if rectified else "without REG"
                side = -1 if rectified else 1
                _draw_front(panel, front, _look(*LOOKS[method], rectified), label, side)
        panel.axvline(real, color="black", linestyle=":", linewidth=1)
        panel.set_title(METHODS[method], fontsize=11)
        panel.grid(alpha=0.25)
        panel.tick_params(labelbottom=True)
        panel.legend(frameon=False, fontsize=8)
    # CFG's kinds share one range; classifier guidance, which begins far to the left, another.
    for group in (axes.flat[:5], axes.flat[5:7]):
        _same_range(list(group))
    axes[1, 3].set_visible(False)
    for panel in axes[:, 0]:
        panel.set_ylabel("FID (judge's features), lower is better")
    for panel in axes.flat[:7]:
        panel.set_xlabel(SURE, fontsize=9)
    return made


def _same_range(group: Sequence[Any]) -> None:
    """One range of both axes for all panels of a group, FID on a log axis."""
    for panel in group:
        _log_fid(panel)
    for get, change in (("get_xlim", "set_xlim"), ("get_ylim", "set_ylim")):
        ends = [getattr(panel, get)() for panel in group]
        for panel in group:
            getattr(panel, change)(min(low for low, _ in ends), max(high for _, high in ends))


def _log_fid(panel: Any) -> None:
    panel.set_yscale("log")
    limits, ticks = panel.get_ylim(), [0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50]
    panel.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.minorticks_off()
    panel.set_ylim(max(limits[0], limits[1] / 200), limits[1])  # an error bar may reach 0


def _log_scale(panel: Any) -> None:
    limits = panel.get_xlim()
    panel.set_xscale("log")
    panel.set_xticks(SCALES, [str(scale) for scale in SCALES])
    panel.minorticks_off()
    panel.set_xlim(max(limits[0], 0.9), 1.05 * limits[1])


def draw_scales(measured: Sequence[Measured]) -> Figure:
    """FID, precision and recall over the scale: CFG's kinds above, classifier guidance below."""
    made, axes = figure(13, 7.2, 2, 3, sharex="row")
    kinds = (("vanilla", "interval", "autoguidance"), CLASSIFIER_METHODS)
    for line, methods in enumerate(kinds):
        for method in methods:
            for rectified in (False, True):
                front = front_of(measured, method, rectified)
                if front is None:
                    continue
                rows = [m.row for m in front.points if m.point.scale >= 1]  # of a log axis
                look = _look(*LOOKS[method], rectified)
                name = METHODS[method] + (" + REG" if rectified else "")
                scales = [r["scale"] for r in rows]
                for panel, key in zip(axes[line], ("fid", "precision", "recall"), strict=True):
                    errors = [r["fid_error"] for r in rows] if key == "fid" else None
                    panel.errorbar(scales, [r[key] for r in rows], yerr=errors, label=name, **look)
        if axes[line, 2].lines:
            axes[line, 2].legend(frameon=False, fontsize=8, loc="lower left")
        for panel in axes[line]:
            panel.set_xlabel("guidance scale" if line == 0 else "weight w of the classifier")
    for panel in axes.flat:
        panel.grid(alpha=0.25)
        _log_scale(panel)
    for panels, name in zip(axes.T, ("FID", "precision", "recall"), strict=True):
        for panel in panels:
            panel.set_ylabel(name)
    for panels in axes.T[1:]:
        ends = [panel.get_ylim() for panel in panels]
        for panel in panels:
            panel.set_ylim(min(low for low, _ in ends), max(high for _, high in ends))
    for panel in axes[:, 0]:
        _log_fid(panel)
    for line, last in ((0, 9), (1, 40)):
        axes[line, 0].set_xlim(0.9, last)
    return made


def draw_estimators(measured: Sequence[Measured]) -> Figure:
    """FID of every estimator and the calibrated plan at one scale, and its work."""
    made, axes = figure(8.5, 0.42 * len(measured) + 1.2)
    panel, places = axes[0, 0], range(len(measured))
    for place, each in zip(places, measured, strict=True):
        row, plain = each.row, not each.point.rectified
        look = _look("vermillion" if plain else "blue", "o" if plain else "s", not plain)
        panel.errorbar(row["fid"], place, xerr=row["fid_error"], **look)
        back = f" + {row['backward']:g} backward" if row["backward"] else ""
        panel.annotate(
            f"{row['nfe']:.3g} evaluations{back}",
            (1.01, place),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
        )
    panel.set_yticks(places, [_name(m) for m in measured])
    panel.set_ylim(len(measured) - 0.5, -0.5)
    panel.grid(alpha=0.25, axis="x")
    panel.set_xlabel("FID (judge's features), lower is better; bars: 95 %")
    return made


def _name(measured: Measured) -> str:
    point = measured.point
    name = point.estimator if point.rectified else "CFG"
    name += ", calibrated plan" if point.plan == "calibrated" else ""
    return name + (f", {point.solver[0]} {point.solver[1]} steps" if point.solver else "")


def draw_post(after: Sequence[After]) -> Figure:
    """FID, precision and recall before and after postprocessing, over the scale."""
    methods = [
        m for m in ("vanilla", "cg-linear") if any(a.before.point.method == m for a in after)
    ]
    made, axes = figure(13, 3.9 * len(methods), len(methods), 3)
    for line, method in enumerate(methods):
        for rectified in (False, True):
            own = [a for a in after if _kind(a.before, method, rectified)]
            with_reg = " + REG" if rectified else ""
            first = [a for a in own if a.space == "pixels"]
            before = [a.before for a in first]
            _lines(axes[line], before, _look(*LOOKS[method], rectified), METHODS[method] + with_reg)
            for space in SPACES:
                moved = [a.after for a in own if a.space == space]
                look = _look(*SPACE_LOOKS[space], rectified)
                name = f"{METHODS[method]}{with_reg}, moved by {SPACES[space]}"
                _lines(axes[line], moved, look, name)
        axes[line, 2].legend(frameon=False, fontsize=7, loc="lower left")
        for panel in axes[line]:
            panel.grid(alpha=0.25)
            _log_scale(panel)
            panel.set_xlabel("guidance scale" if method == "vanilla" else "weight w")
    for panels, name in zip(axes.T, ("FID", "precision", "recall"), strict=True):
        for panel in panels:
            panel.set_ylabel(name)
    for panel in axes[:, 0]:
        _log_fid(panel)
    return made


def _lines(axes: Iterable[Any], measured: list[Measured], look: dict[str, Any], name: str) -> None:
    rows = sorted((m.row for m in measured), key=lambda r: float(r["scale"]))
    scales = [r["scale"] for r in rows]
    for panel, key in zip(axes, ("fid", "precision", "recall"), strict=True):
        errors = [r["fid_error"] for r in rows] if key == "fid" else None
        panel.errorbar(scales, [r[key] for r in rows], yerr=errors, label=name, **look)


def _kind(measured: Measured, method: str, rectified: bool) -> bool:
    """Of the method; the unguided point stands on both lines of CFG."""
    point = measured.point
    if point.method != method:
        return False
    return point.rectified is rectified or (method == "vanilla" and point.scale == 1)


def draw_samples(rows: dict[str, Tensor], columns: int = 20) -> Figure:
    """One line of images a set: the same seeds below each other."""
    made, axes = figure(columns * 0.39 + 3.1, 0.5 * len(rows) + 0.2, len(rows))
    for panel, (name, samples) in zip(axes[:, 0], rows.items(), strict=True):
        panel.imshow(grid(to_uint8(samples[:columns]), columns).squeeze(-1).numpy(), cmap="gray")
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
        panel.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    return made
