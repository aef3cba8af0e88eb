"""Figures of `theory` in the plane: clouds, distances, guidance fields and their errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...oracles import GaussianMixture, TiltedGrid
from ..figures import COLOURS, figure, level, style
from .fields import fields
from .page import spread
from .samples import HERO, REPEATED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIMITS = (-1.9, 1.45), (-1.45, 1.75)  # of the plane, for every cloud
LOOKS = {"CFG": "cfg", "vjp": "reg", "paper": "reg"}  # of a method, where its own name is none
TITLES = {"interval": "interval CFG", "vjp": "REG", "golden": "golden", "target": "exact target"}


def clouds(
    mixture: GaussianMixture,
    found: Mapping[float, Mapping[str, Tensor]],
    methods: Mapping[str, Any],
    shown: int = 1500,
) -> Figure:
    """Samples of every method (columns) at every weight (rows) on the target's contours."""
    names = (*HERO, "target")
    size = (13.5, 2.3 * len(found) + 0.3)
    made, axes = figure(*size, len(found), len(names), sharex=True, sharey=True)
    xs, ys = (np.linspace(a, b, 220) for a, b in LIMITS)
    points = torch.from_numpy(np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2))
    other = mixture.log_prob(points, y=1).exp().reshape(len(ys), len(xs))
    for line, (w, samples) in zip(axes, found.items(), strict=True):
        log_target = (1 + w) * mixture.log_prob(points, y=0) - w * mixture.log_prob(points)
        target = (log_target - log_target.max()).exp().reshape(len(ys), len(xs))
        scored = methods[f"{w:g}"]
        for ax, name in zip(line, names, strict=True):
            ax.contourf(xs, ys, other, levels=[0.05, 10], colors=["#E6E6E6"], zorder=0)
            looks = {"color": COLOURS[LOOKS.get(name, name)], "alpha": 0.55}
            ax.scatter(*samples[name][:shown].T, s=3, lw=0, rasterized=True, **looks)
            ax.contour(xs, ys, target, levels=[0.03, 0.4], colors="black", linewidths=0.7)
            score = scored["floor"] if name == "target" else fmean(scored["scores"][name])
            place = {"ha": "right", "va": "top", "fontsize": 9, "transform": ax.transAxes}
            ax.text(0.97, 0.96, f"{score:.1e}", **place)
            ax.set(xlim=LIMITS[0], ylim=LIMITS[1], aspect="equal", xticks=[], yticks=[])
            ax.spines[["left", "bottom"]].set_color("#BBBBBB")
        line[0].set_ylabel(f"w = {w:g}", fontsize=13)
    for ax, name in zip(axes[0], names, strict=True):
        ax.set_title(TITLES.get(name, name), fontsize=13)
    return made


def distances(numbers: Mapping[str, Any]) -> Figure:
    """Energy distance over w by method, and over evaluations by solver."""
    made, ((left, right),) = figure(12, 4.3, 1, 2)
    ws, methods = [float(w) for w in numbers["methods"]], list(numbers["methods"].values())
    for name in REPEATED:
        looks = style(LOOKS.get(name, name))
        if name in ("paper", "vjp"):
            looks["label"] = "REG, column sums" if name == "paper" else "REG, K delta"
        looks |= {"linestyle": "--", "mfc": "white"} if name == "paper" else {}
        values = [found["scores"][name] for found in methods]
        bars = [spread(replicas) for replicas in values]
        left.errorbar(ws, [fmean(replicas) for replicas in values], bars, capsize=3, **looks)
    left.plot(ws, [found["floor"] for found in methods], color="black", ls=":", label="floor")
    left.set(xscale="log", yscale="log", xlabel="w = scale - 1", ylabel="energy distance to target")
    left.set_ylim(top=3)  # room for the legend
    left.set_xticks(ws, [f"{w:g}" for w in ws])
    left.legend(frameon=False, ncols=3, fontsize=9, loc="upper left")
    _over_steps(right, numbers["solvers"])
    weight = numbers["setting"]["solver_weight"]
    right.set_title(f"w = {weight:g}; colours as on the left", fontsize=11)
    for ax in (left, right):
        ax.minorticks_off()
        ax.grid(alpha=0.3, which="major")
    return made


def _over_steps(ax: Any, solvers: Sequence[Mapping[str, Any]]) -> None:
    """A line for each solver and guidance over the evaluations of the guided model."""
    from matplotlib.lines import Line2D

    handles = []
    for solver, marker in zip(dict.fromkeys(s["solver"] for s in solvers), "osD^v", strict=False):
        runs = [s for s in solvers if s["solver"] == solver]
        looks: dict[str, Any] = {"marker": marker, "ms": 5}
        for key in ("cfg", "reg", "golden"):
            values = [run[key] for run in runs]
            ax.plot([run["visits"] for run in runs], values, color=COLOURS[key], lw=1, **looks)
        handles.append(Line2D([], [], color="black", lw=0, label=solver, **looks))
    ax.set(xscale="log", yscale="log", xlabel="evaluations of the guided model")
    ax.set_ylim(top=2)
    ax.set_xticks((8, 16, 32, 64), ("8", "16", "32", "64"))
    visits = [s["visits"] for s in solvers]
    ax.set_xlim(0.9 * min(visits), 1.1 * max(visits))
    ax.legend(handles=handles, frameon=False, fontsize=9, ncols=3, loc="upper left")


def guidance_fields(grid: TiltedGrid, w: float, levels: Sequence[float], side: int = 15) -> Figure:
    """What golden, CFG and REG add to the denoised estimate, on one lattice at several levels.

    Arrows show the direction and are equally long; their colour is the length of the vector, on one
    logarithmic scale for a row.
    """
    from matplotlib.colors import LogNorm

    titles = {"golden": "golden: grad log E", "cfg": "CFG: grad log R"}
    titles |= {"product": "REG: K grad log R"}
    looks: dict[str, Any] = {"cmap": "viridis_r", "pivot": "mid", "width": 0.006}
    looks |= {"angles": "xy", "scale_units": "xy", "scale": 1}
    made, axes = figure(11.8, 3.7 * len(levels), len(levels), 3)
    for line, sigma in zip(axes, levels, strict=True):
        reach = 1.3 + 0.8 * sigma
        axis = torch.linspace(-reach, reach, side, dtype=torch.float64)
        points = torch.cartesian_prod(axis, axis)
        found = fields(grid, w, points, sigma)
        fine = torch.linspace(-1.1 * reach, 1.1 * reach, 120, dtype=torch.float64)
        mesh = torch.cartesian_prod(fine, fine)
        longest = float(found["cfg"].norm(dim=1).max())
        norm = LogNorm(longest / 300, longest)
        cell = 2 * reach / (side - 1)
        for ax, (name, title) in zip(line, titles.items(), strict=True):
            for y, colour in ((0, "#555555"), (1, "#BBBBBB")):
                density = grid.mixture.log_prob(mesh, 1.0, sigma, y).exp().reshape(120, 120).T
                shown = [0.1 * float(density.max()), 0.5 * float(density.max())]
                ax.contour(fine, fine, density, shown, colors=colour, linewidths=0.8)
            length = found[name].norm(dim=1, keepdim=True).clamp_min(1e-12)
            drawn = (*points.T, *(0.8 * cell * found[name] / length).T, length[:, 0].numpy())
            arrows = ax.quiver(*drawn, norm=norm, **looks)
            limits = (-1.1 * reach, 1.1 * reach)
            ax.set(aspect="equal", xlim=limits, ylim=limits)
            ax.tick_params(labelsize=8)
            if sigma == levels[0]:
                ax.set_title(title, fontsize=13)
        line[0].set_ylabel(f"noise level {sigma:g}", fontsize=12)
        bar = made.colorbar(arrows, ax=line, extend="min", pad=0.01)
        bar.set_label("length, in units of the data", fontsize=10)
    return made


def errors(numbers: Mapping[str, Any]) -> Figure:
    """Error of CFG and REG against golden, and win ratios at two sets of points, by noise level."""
    made, ((left, right),) = figure(12, 4.2, 1, 2)
    everywhere, guided = (numbers["field_errors"][kind] for kind in ("all", "guided"))
    sigmas = numbers["levels"]
    for w, marker in zip(guided, "os^D", strict=False):
        looks: dict[str, Any] = {"marker": marker, "ms": 4, "lw": 1}
        for key, rows in (
            ("cfg", [row["cfg"] for row in guided[w]]),
            ("reg", [row["reg"]["product"] for row in guided[w]]),
        ):
            label = f"{style(key)['label']}, w = {w}"
            values = [row["relative"] for row in rows]
            left.plot(sigmas, values, color=COLOURS[key], label=label, **looks)
        for points, line, where in (
            (everywhere[w], "-", "whole mixture"),
            (guided[w], "--", "guided points"),
        ):
            wins = [100 * row["wins"]["product"] for row in points]
            label = f"w = {w}, {where}"
            right.plot(sigmas, wins, color=COLOURS["reg"], ls=line, label=label, **looks)
    inside = [s for s, yes in zip(sigmas, numbers["middle_third"], strict=True) if yes]
    for ax in (left, right):
        ax.axvspan(min(inside), max(inside), color="#EEEEEE", zorder=0, lw=0)
        ax.set(xscale="log", xlabel="noise level")
        ax.grid(alpha=0.3)
    left.set(yscale="log", ylabel="error relative to golden's size (rms)")
    left.legend(frameon=False, fontsize=8, ncols=2, loc="lower right")
    level(right, 50, color="black", ls=":")
    right.set(ylabel="REG nearer to golden than CFG, % of points", ylim=(0, 103))
    right.legend(frameon=False, fontsize=8, loc="lower right")
    return made
