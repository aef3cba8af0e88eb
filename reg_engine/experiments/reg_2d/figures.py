"""The figures of reg-2d: fields and samples of one set, win ratios over steps, energy distances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...oracles import SHAPES, Shape
from ..figures import COLOURS, figure, level, outside_legend, style
from .models import STEPS
from .page import TITLES
from .win import METHODS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = {"paper": ("reg", "paper"), "vjp": ("cg", "vjp"), "diagonal": ("interval", "diagonal")}
SIDE = 1.15  # of a panel, in units of the farthest component


@dataclass(frozen=True)
class Fields:
    """Guidance of class 0 at one step, on a square lattice.

    Args:
        axis: (n,) coordinates.
        fine, log_density: (m,) and (m, m) of p_t(x_t|y), first index along x.
        golden, reg, cfg: (n, n, 2) grad log E_t and w K^T delta, w delta in its units.
    """

    axis: Tensor
    fine: Tensor
    log_density: Tensor
    golden: Tensor
    reg: Tensor
    cfg: Tensor


def field_figure(shape: Shape, fields: Fields, clouds: Mapping[str, Tensor], w: float) -> Figure:
    """Samples, fields and sizes: three rows, and a column each for the truth, REG and CFG.

    Args:
        clouds: target, golden, reg, cfg, each (2, n, 2); noised: x_t of class 0, (n, 2).
    """
    made, axes = figure(12.2, 9.4, 3, 4, sharex=True, sharey=True)
    limit = float(fields.axis.abs().max())
    names = {"target": "(a) target", "golden": "golden guidance"}
    names |= {"reg": "(b) CFG + REG", "cfg": "(c) CFG"}
    for each, (name, title) in zip(axes[0], names.items(), strict=True):
        for label in (0, 1):
            _dots(each, clouds[name][label], COLOURS[f"class{label}"])
        each.set_title(f"{title}: samples")
    _dots(axes[1, 0], clouds["noised"], COLOURS["class0"])
    axes[1, 0].set_title("$x_t$ of class 0, without guidance")
    sizes = {name: getattr(fields, name).norm(dim=-1) for name in ("golden", "reg", "cfg")}
    largest = float(torch.quantile(sizes["cfg"], 0.9))
    titles = {
        "golden": (r"(d) golden, $\nabla\log E_t$", "size of golden guidance"),
        "reg": (r"(e) with REG", "(g) size with REG"),
        "cfg": (r"(f) CFG, $\nabla\log R_t$", "(h) size of CFG"),
    }
    shown: Any = None
    for column, name in enumerate(("golden", "reg", "cfg"), 1):
        times = _magnification(sizes[name], largest) if name == "golden" else 1
        _arrows(axes[1, column], fields, times * getattr(fields, name), largest)
        longer = f" (arrows x {times})" if times > 1 else ""
        axes[1, column].set_title(titles[name][0] + longer)
        shown = _mesh(axes[2, column], fields.axis, sizes[name], (0, largest), "viridis")
        axes[2, column].set_title(titles[name][1])
    made.colorbar(shown, ax=axes[2, 1:], label="length of the vector", extend="max", pad=0.01)
    _won(axes[2, 0], fields)
    for each in axes.flat:
        each.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
        each.title.set_fontsize(10)
    made.suptitle(f"{shape.title}, w = {w:g}", fontsize=12)
    return made


def _dots(axes: Any, points: Tensor, colour: str) -> None:
    axes.scatter(
        *points.T.numpy(),
        s=2.0 if len(points) > 800 else 5.0,
        color=colour,
        alpha=0.5,
        linewidths=0,
        rasterized=True,
    )


def _arrows(axes: Any, fields: Fields, vectors: Tensor, largest: float) -> None:
    """Arrows, longer ones than `largest` cut to a lattice cell and a half; p_t behind them."""
    spacing = float(fields.axis[1] - fields.axis[0])
    density = (fields.log_density - fields.log_density.max()).exp()
    _mesh(axes, fields.fine, density, (0, 3), "Greys")
    x, y = torch.meshgrid(fields.axis, fields.axis, indexing="ij")
    size = vectors.norm(dim=-1, keepdim=True)
    u, v = (vectors * (largest / size.clamp_min(largest))).unbind(-1)
    axes.quiver(
        *(part.numpy() for part in (x, y, u, v)), angles="xy", scale_units="xy", pivot="mid",
        scale=largest / (1.4 * spacing), width=0.006, color="black",
    )  # fmt: skip


def _mesh(
    axes: Any, axis: Tensor, values: Tensor, limits: tuple[float, float], colours: str
) -> Any:
    """Values (n, n), first index along x, as cells around axis x axis."""
    x = axis.numpy()
    return axes.pcolormesh(
        x, x, values.T.numpy(), vmin=limits[0], vmax=limits[1], cmap=colours, shading="nearest",
        rasterized=True, zorder=0,
    )  # fmt: skip


def _magnification(sizes: Tensor, largest: float) -> int:
    """1, 2, 5, 10, ... that makes the larger arrows of `sizes` about as long as `largest`."""
    room = largest / max(float(torch.quantile(sizes, 0.9)), 1e-3 * largest)
    return max(n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if n <= max(room, 1))


def _won(axes: Any, fields: Fields) -> None:
    errors = [(part - fields.golden).norm(dim=-1) for part in (fields.reg, fields.cfg)]
    share = torch.log10((errors[0] / errors[1].clamp_min(1e-12)).clamp(1e-12)).clamp(-1, 1)
    shown = _mesh(axes, fields.axis, share, (-1, 1), "PuOr_r")
    bar = axes.figure.colorbar(shown, ax=axes, location="left", pad=0.02, ticks=(-1, 0, 1))
    bar.ax.set_yticklabels(["0.1", "1", "10"])
    bar.set_label("error of REG / error of CFG")
    axes.set_title("REG is nearer to golden: purple")


def steps_figure(views: Mapping[str, Any]) -> Figure:
    """Win ratio over the steps: a row for each view, a column for each guidance method.

    Args:
        views: `win_ratio` of the numbers: view -> set -> method.
    """
    titles = {"chains": "network, chains", "oracle": "network, exact", "exact": "exact, exact"}
    shape = (len(titles), len(METHODS))
    made, axes = figure(13.0, 8.2, *shape, sharex=True, sharey="row")
    for line, (view, title) in zip(axes, titles.items(), strict=True):
        lowest = 47.0  # half of the points is always shown
        for panel, method in zip(line, METHODS, strict=True):
            found = [methods[method] for methods in views[view].values()]
            for estimator, (look, label) in SHOWN.items():
                wins = 100 * np.array([scores[estimator]["wins"] for scores in found])
                drawn = {**style(look), "label": label, "markersize": 3.5, "linewidth": 1.2}
                panel.plot(found[0]["steps"], wins.mean(0), **drawn)
                if estimator == "paper":
                    looks = {"color": drawn["color"], "alpha": 0.15, "linewidth": 0}
                    panel.fill_between(found[0]["steps"], wins.min(0), wins.max(0), **looks)
                    lowest = min(lowest, float(wins.min()))
            level(panel, 50, color="black", ls="--")
            panel.grid(alpha=0.25)
        line[0].text(STEPS, 50.5, "50 %", fontsize=8, va="bottom")
        line[0].set(ylabel=f"{title}\nwin ratio, %", ylim=(lowest - 3, 103))
    for panel, title in zip(axes[0], TITLES.values(), strict=True):
        panel.set_title(title)
    axes[0, 0].set_xlim(STEPS + 0.5, 0.5)
    made.supxlabel(f"step t ({STEPS} = noise)", fontsize=11)
    outside_legend(made, axes[0, 0], columns=3)
    return made


def energy_figure(scores: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Figure:
    """Energy distance to the tilted target: a panel for each w, a group for each set.

    Args:
        scores: "w=1" -> set -> cloud -> energy distance.
    """
    made, axes = figure(11.0, 3.8, 1, len(scores), sharey=True)
    looks = {
        "golden": style("golden"),
        "unguided": style("unguided"),
        "reg_paper": {**style("reg"), "label": "REG (paper)"},
        "reg_vjp": {**style("cg"), "label": "REG (vjp)"},
        "interval": style("interval"),
        "cfg": style("cfg"),
    }
    for panel, (w, sets) in zip(axes[0], scores.items(), strict=True):
        for place, found in enumerate(sets.values()):
            for number, (name, look) in enumerate(looks.items()):
                x = place + 0.11 * (number - 2.5)
                label = look["label"] if place == 0 else None
                panel.plot(x, found[name], **{**look, "label": label}, linestyle="", markersize=7)
            panel.plot(place + np.array([-0.4, 0.4]), [found["floor"]] * 2, color="black", lw=0.9)
        panel.set_xticks(range(len(sets)), [SHAPES[name][0] for name in sets])
        panel.set(yscale="log", title=w.replace("=", " = "), xlim=(-0.6, len(sets) - 0.4))
        panel.grid(alpha=0.25, axis="y", which="both")
    axes[0, 0].set_ylabel("energy distance to the tilted target")
    outside_legend(made, axes[0, -1], "right center", columns=1)
    return made


def lattice(shape: Shape, count: int) -> tuple[Tensor, Tensor]:
    """Axis (n,) and points (n n, 2) of a square around the set."""
    side = SIDE * (float(shape.mixture.means.abs().max()) + 3 * shape.bandwidth)
    axis = torch.linspace(-side, side, count, dtype=torch.float64)
    return axis, torch.cartesian_prod(axis, axis)
