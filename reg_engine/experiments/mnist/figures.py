"""Figures of the `mnist` experiment, from its numbers.

Open marks: without REG; filled marks: with REG.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pictures.labels import place_labels
from ...pictures.plots import OKABE_ITO
from ..draws import CLASSIFIER_METHODS, METHODS
from ..figures import figure
from ..image_runs import marks
from .claims import key_of
from .fronts import Row, on_front
from .post import SPACES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


LOOKS = {
    "vanilla": ("vermillion", "o"),
    "linear": ("sky", "v"),
    "cosine": ("yellow", "<"),
    "interval": ("green", "^"),
    "autoguidance": ("black", ">"),
    "cg": ("purple", "D"),
    "cg-linear": ("orange", "s"),
}
SPACE_LOOKS = {"pixels": ("green", "^"), "features": ("sky", "v")}
SCALES = (1, 2, 3, 5, 8, 16, 32)  # ticks
MEASURES = ("fid", "precision", "recall")


def draw_fronts(numbers: Mapping[str, Any]) -> Figure:
    """A panel a method: FID against confidence over its scales, without and with REG; and a last
    one: REG's FID against that without at equal confidence."""
    made, axes = figure(15, 7.6, 2, 4)
    rows, real = numbers["points"], numbers["confidence_of_test_images"]
    panels = dict(zip(LOOKS, axes.flat, strict=False))
    for method, panel in panels.items():
        if method != "vanilla":
            cfg = _columns(on_front(rows, "vanilla", False))
            panel.plot(*cfg.T, color="#cccccc", linewidth=4, zorder=0, label="CFG, no REG")
        for rectified in (False, True):
            front = on_front(rows, method, rectified)
            errors = {name: [row[f"{key}_error"] for row in front] for name, key in _AXES.items()}
            look = marks(*LOOKS[method], rectified) | {"capsize": 0, "markersize": 5}
            label = f"{'with' if rectified else 'without'} REG"
            panel.errorbar(*_columns(front).T, **errors, label=label, **look)
        panel.axvline(real, color="black", linestyle=":", linewidth=1)
        panel.set_title(METHODS[method], fontsize=11)
        panel.grid(alpha=0.25)
        panel.set_xlabel("confidence: mean log-odds of the label", fontsize=9)
        if method in CLASSIFIER_METHODS:
            _stretch(panel, real)
    # CFG's kinds share one range; classifier guidance, which begins far to the left, another.
    for classifier in (False, True):
        _same_range([p for m, p in panels.items() if (m in CLASSIFIER_METHODS) is classifier])
    _draw_differences(axes[1, 3], numbers)
    for panel in axes[:, 0]:
        panel.set_ylabel("FID (judge's features), lower is better")
    made.draw_without_rendering()  # now every panel has its place, and labels can be given theirs
    for method, panel in panels.items():
        _label_scales(panel, rows, method)
        panel.legend(frameon=False, fontsize=8, loc="best")
    return made


_AXES = {"xerr": "confidence", "yerr": "fid"}


def _columns(rows: Sequence[Row]) -> np.ndarray:
    """(confidence, FID) of rows, (n, 2)."""
    return np.array([[row["confidence"], row["fid"]] for row in rows]).reshape(-1, 2)


def _stretch(panel: Any, real: float) -> None:
    """An axis of confidence that gives most room to what is near that of real images."""
    panel.set_xscale(
        "function", functions=(lambda x: np.arcsinh(x - real), lambda y: real + np.sinh(y))
    )
    panel.set_xticks([round(real) + step for step in (-18, -8, -4, -2, -1, 0, 1, 2)])
    panel.minorticks_off()


def _label_scales(panel: Any, rows: Sequence[Row], method: str) -> None:
    """The scale beside every mark, once where both fronts have the same point."""
    lines, labels = [_columns(on_front(rows, "vanilla", False))], {}
    for rectified in (True, False):
        front = on_front(rows, method, rectified)
        lines.append(_columns(front))
        for row in front:
            x, y, dx, dy = (row[k] for k in ("confidence", "fid", "confidence_error", "fid_error"))
            lines += [np.array([[x - dx, y], [x + dx, y]])]
            lines += [np.array([[x, max(y - dy, y / 10)], [x, y + dy]])]
            weight = "bold" if row["estimator"] != "none" else "normal"
            labels[x, y] = (x, y, f"{row['scale']:g}", weight)
    place_labels(panel, list(labels.values()), lines, OKABE_ITO[LOOKS[method][0]])


def _draw_differences(panel: Any, numbers: Mapping[str, Any]) -> None:
    """REG's FID at equal confidence as a share of that without, a line a method."""
    for place, (method, fronts) in enumerate(numbers["fronts"].items()):
        found = numbers["differences"].get(key_of(method), {})
        for step, (level, (value, error)) in enumerate(found.items()):
            without = fronts["levels"][level][0]
            at = place + 0.15 * (step - (len(found) - 1) / 2)
            look = marks(*LOOKS[method], abs(value) > error) | {"markersize": 5, "capsize": 0}
            panel.errorbar(100 * value / without, at, xerr=100 * error / without, **look)
        look = {"transform": panel.get_yaxis_transform(), "ha": "right", "va": "center"}
        colour = OKABE_ITO[LOOKS[method][0]]
        panel.text(0.99, place, METHODS[method], fontsize=9, color=colour, **look)
    low, high = panel.get_xlim()
    panel.set_xlim(low, high + 0.4 * (high - low))  # room for the names
    panel.axvline(0, color="black", linewidth=1)
    panel.set_yticks([])
    panel.set_ylim(len(numbers["fronts"]) - 0.5, -0.5)
    panel.grid(alpha=0.25, axis="x")
    panel.set_title("REG against not, at equal confidence", fontsize=11)
    panel.set_xlabel("FID difference, % (filled: beyond the bar)", fontsize=9)


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


def _over_scale(
    panels: Sequence[Any], rows: Sequence[Row], look: Mapping[str, Any], name: str, shift: int = 0
) -> None:
    """FID, precision and recall over the scale; `shift` moves marks aside, so that bars show."""
    rows = sorted((row for row in rows if row["scale"] >= 1), key=lambda row: float(row["scale"]))
    scales = [row["scale"] * 1.015**shift for row in rows]
    for panel, key in zip(panels, MEASURES, strict=True):
        errors = [row["fid_error"] for row in rows] if key == "fid" else None
        panel.errorbar(scales, [row[key] for row in rows], yerr=errors, label=name, **look)


def _finish(axes: np.ndarray, labels: Sequence[str]) -> None:
    """Axes, grids and legends of two lines of such panels."""
    for line, label in zip(axes, labels, strict=True):
        for panel, key in zip(line, MEASURES, strict=True):
            panel.set(xlabel=label, ylabel="FID" if key == "fid" else key)
            panel.grid(alpha=0.25)
            limits = panel.get_xlim()
            panel.set_xscale("log")
            panel.set_xticks(SCALES, [str(scale) for scale in SCALES])
            panel.minorticks_off()
            panel.set_xlim(max(limits[0], 0.9), 1.05 * limits[1])
        if line[2].lines:
            line[2].legend(frameon=False, fontsize=8, loc="lower left")
        _log_fid(line[0])
    axes[0, 0].figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)


def draw_scales(numbers: Mapping[str, Any]) -> Figure:
    """FID, precision and recall over the scale: CFG's kinds above, classifier guidance below."""
    made, axes = figure(13, 7.4, 2, 3, sharex="row", sharey="col")
    kinds = (("vanilla", "interval", "autoguidance"), CLASSIFIER_METHODS)
    for line, methods in zip(axes, kinds, strict=True):
        for method in methods:
            for rectified in (False, True):
                rows = on_front(numbers["points"], method, rectified)
                name = METHODS[method] + (" + REG" if rectified else "")
                _over_scale(line, rows, marks(*LOOKS[method], rectified), name)
    _finish(axes, ("guidance scale", "weight w of the classifier"))
    for line, last in zip(axes, (9, 40), strict=True):
        line[0].set_xlim(0.9, last)
    return made


def draw_estimators(rows: Sequence[Row]) -> Figure:
    """FID of every estimator and the calibrated plan at one scale, and its work."""
    made, axes = figure(8.5, 0.42 * len(rows) + 1.2)
    panel, names = axes[0, 0], []
    for place, row in enumerate(rows):
        reg = row["estimator"] != "none"
        look = marks("blue" if reg else "vermillion", "s" if reg else "o", reg)
        panel.errorbar(row["fid"], place, xerr=row["fid_error"], **look)
        back = f" + {row['backward']:g} backward" if row["backward"] else ""
        text, at = f"{row['nfe']:.3g} evaluations{back}", (1.01, place)
        panel.annotate(text, at, xycoords=("axes fraction", "data"), va="center", fontsize=8)
        name = row["estimator"] if reg else "CFG"
        name += ", calibrated plan" if row["plan"] == "calibrated" else ""
        solver = row["solver"]
        names.append(name + (f", {solver[0]} {solver[1]} steps" if solver else ""))
    panel.set_yticks(range(len(rows)), names)
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.grid(alpha=0.25, axis="x")
    panel.set_xlabel("FID (judge's features), lower is better; bars: 95 %")
    return made


def draw_post(moved: Sequence[Mapping[str, Any]]) -> Figure:
    """FID, precision and recall before and after postprocessing, over the scale.

    Args:
        moved: space, and the rows before and after, of every point in every space.
    """
    methods = list(dict.fromkeys(each["before"]["method"] for each in moved))
    made, axes = figure(13, 3.9 * len(methods), len(methods), 3)
    for line, method in zip(axes, methods, strict=True):
        for rectified in (False, True):
            reg = " + REG" if rectified else ""
            own = [each for each in moved if _on_line(each["before"], method, rectified)]
            before = [each["before"] for each in own if each["space"] == "pixels"]
            look = marks(*LOOKS[method], rectified)
            _over_scale(line, before, look, METHODS[method] + reg, -1)
            for shift, space in enumerate(SPACES):
                after = [each["after"] for each in own if each["space"] == space]
                look = marks(*SPACE_LOOKS[space], rectified)
                _over_scale(line, after, look, f"{METHODS[method]}{reg}, moved ({space})", shift)
    labels = {"vanilla": "guidance scale"}
    _finish(axes, [labels.get(method, "weight w of the classifier") for method in methods])
    return made


def _on_line(row: Row, method: str, rectified: bool) -> bool:
    """Of the method; the unguided point stands on both lines of CFG."""
    if row["method"] != method:
        return False
    unguided = method == "vanilla" and row["scale"] == 1
    return (row["estimator"] != "none") is rectified or unguided
