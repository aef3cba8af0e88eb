"""Figures of `theory` in the plane: clouds, distances, guidance fields and their errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...oracles import GaussianMixture
from ..figures import COLOURS, figure, style
from .fields import FieldErrors, fields
from .scores import GridGolden
from .tables import HERO, Scores, Size, SolverScore

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["clouds", "distances", "errors", "guidance_fields"]

LIMITS = (-1.9, 1.45), (-1.45, 1.75)  # of the plane, for every cloud
_KEYS = {"unguided": "unguided", "CFG": "cfg", "interval": "interval", "vjp": "reg"}
_TITLES = {"interval": "interval CFG", "vjp": "REG", "golden": "golden", "target": "exact target"}


def clouds(mixture: GaussianMixture, scores: Mapping[float, Scores], shown: int = 1500) -> Figure:
    """Samples of every method (columns) at every weight (rows) on the target's contours."""
    names = (*HERO, "target")
    made, axes = figure(
        13.5, 2.3 * len(scores) + 0.3, len(scores), len(names), sharex=True, sharey=True
    )
    xs, ys = (np.linspace(a, b, 220) for a, b in LIMITS)
    points = torch.from_numpy(np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2))
    other = mixture.log_prob(points, y=1).exp().reshape(len(ys), len(xs))
    for line, (w, found) in zip(axes, scores.items(), strict=True):
        log_target = (1 + w) * mixture.log_prob(points, y=0) - w * mixture.log_prob(points)
        target = (log_target - log_target.max()).exp().reshape(len(ys), len(xs))
        for ax, name in zip(line, names, strict=True):
            ax.contourf(xs, ys, other, levels=[0.05, 10], colors=["#E6E6E6"], zorder=0)
            cloud = found.clouds[name][:shown]
            colour = COLOURS[_KEYS.get(name, name)]
            ax.scatter(*cloud.T, s=3, color=colour, lw=0, alpha=0.55, rasterized=True)
            ax.contour(xs, ys, target, levels=[0.03, 0.4], colors="black", linewidths=0.7)
            text = f"{found.floor if name == 'target' else found.mean(name):.1e}"
            ax.text(0.97, 0.96, text, ha="right", va="top", fontsize=9, transform=ax.transAxes)
            ax.set(xlim=LIMITS[0], ylim=LIMITS[1], aspect="equal", xticks=[], yticks=[])
            ax.spines[["left", "bottom"]].set_color("#BBBBBB")
        line[0].set_ylabel(f"w = {w:g}", fontsize=13)
    for ax, name in zip(axes[0], names, strict=True):
        ax.set_title(_TITLES.get(name, name), fontsize=13)
    return made


def distances(scores: Mapping[float, Scores], solvers: Sequence[SolverScore], size: Size) -> Figure:
    """Energy distance over w by method, and over evaluations by solver."""
    made, axes = figure(12, 4.3, 1, 2)
    left, right = axes[0]
    ws = list(scores)
    for name in ("unguided", "CFG", "interval", "paper", "vjp", "golden"):
        looks = style(_KEYS.get(name, "reg" if name == "paper" else name))
        if name in ("paper", "vjp"):
            looks["label"] = "REG, column sums" if name == "paper" else "REG, K delta"
        looks |= {"linestyle": "--", "mfc": "white"} if name == "paper" else {}
        means = [scores[w].mean(name) for w in ws]
        left.errorbar(ws, means, [scores[w].spread(name) for w in ws], capsize=3, **looks)
    left.plot(ws, [scores[w].floor for w in ws], color="black", ls=":", label="floor")
    left.set(xscale="log", yscale="log", xlabel="w = scale - 1", ylabel="energy distance to target")
    left.set_ylim(top=3)  # room for the legend
    left.set_xticks(ws, [f"{w:g}" for w in ws])
    left.legend(frameon=False, ncols=3, fontsize=9, loc="upper left")
    _over_steps(right, solvers)
    right.set_title(f"w = {size.solver_weight:g}; colours as on the left", fontsize=11)
    for ax in (left, right):
        ax.minorticks_off()
        ax.grid(alpha=0.3, which="major")
    return made


def _over_steps(ax: Any, solvers: Sequence[SolverScore]) -> None:
    """A line for each solver and guidance over the evaluations of the guided model."""
    from matplotlib.lines import Line2D

    markers = dict(zip(dict.fromkeys(s.solver for s in solvers), "osD^v", strict=False))
    for solver, marker in markers.items():
        runs = [s for s in solvers if s.solver == solver]
        for key in ("cfg", "reg", "golden"):
            values = [getattr(s, key) for s in runs]
            ax.plot([s.visits for s in runs], values, color=COLOURS[key], marker=marker, ms=5, lw=1)
    ax.set(xscale="log", yscale="log", xlabel="evaluations of the guided model")
    ax.set_ylim(top=2)
    ax.set_xticks((8, 16, 32, 64), ("8", "16", "32", "64"))
    visits = [s.visits for s in solvers]
    ax.set_xlim(0.9 * min(visits), 1.1 * max(visits))
    handles = [
        Line2D([], [], color="black", marker=marker, ms=5, lw=0, label=solver)
        for solver, marker in markers.items()
    ]
    ax.legend(handles=handles, frameon=False, fontsize=9, ncols=3, loc="upper left")


def guidance_fields(golden: GridGolden, levels: Sequence[float], side: int = 15) -> Figure:
    """What golden, CFG and REG add to the denoised estimate, on one grid at several levels."""
    columns = ("golden", "cfg", "reg")
    titles = ("golden: grad log E", "CFG: grad log R", "REG: K grad log R")
    made, axes = figure(11, 3.7 * len(levels), len(levels), 3)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=13)
    for line, sigma in zip(axes, levels, strict=True):
        reach = 1.3 + 0.8 * sigma
        axis = torch.linspace(-reach, reach, side, dtype=torch.float64)
        points = torch.cartesian_prod(axis, axis)
        found = fields(golden, points, sigma)
        terms = {"golden": found.golden, "cfg": found.cfg, "reg": found.reg["product"]}
        fine = torch.linspace(-1.1 * reach, 1.1 * reach, 120, dtype=torch.float64)
        mesh = torch.cartesian_prod(fine, fine)
        # One scale for a row: the longest CFG arrow spans two cells.
        unit = 2 * 2 * reach / (side - 1) / float(found.cfg.norm(dim=1).max())
        for ax, name in zip(line, columns, strict=True):
            for y, colour in ((0, "#555555"), (1, "#BBBBBB")):
                density = golden.mixture.log_prob(mesh, 1.0, sigma, y).exp().reshape(120, 120).T
                levels_shown = [0.1 * float(density.max()), 0.5 * float(density.max())]
                ax.contour(fine, fine, density, levels_shown, colors=colour, linewidths=0.8)
            ax.quiver(
                *points.T,
                *(unit * terms[name]).T,
                color=COLOURS[name],
                angles="xy",
                scale_units="xy",
                scale=1,
                width=0.005,
            )
            ax.set(
                aspect="equal", xlim=(-1.1 * reach, 1.1 * reach), ylim=(-1.1 * reach, 1.1 * reach)
            )
            ax.tick_params(labelsize=8)
        line[0].set_ylabel(f"noise level {sigma:g}", fontsize=12)
    return made


def errors(
    guided: Mapping[float, Sequence[FieldErrors]],
    everywhere: Mapping[float, Sequence[FieldErrors]],
    middle: Sequence[bool],
) -> Figure:
    """Error of CFG and REG against golden, and win ratios at two sets of points, by noise level."""
    made, axes = figure(12, 4.2, 1, 2)
    left, right = axes[0]
    markers = dict(zip(guided, "os^D", strict=False))
    for w, marker in markers.items():
        sigmas = [row.sigma for row in guided[w]]
        looks: dict[str, Any] = {"marker": marker, "ms": 4, "lw": 1}
        for key, rows in (
            ("cfg", [row.cfg for row in guided[w]]),
            ("reg", [row.reg["product"] for row in guided[w]]),
        ):
            label = f"{style(key)['label']}, w = {w:g}"
            left.plot(sigmas, [r.relative for r in rows], color=COLOURS[key], label=label, **looks)
        for points, line in ((everywhere[w], "-"), (guided[w], "--")):
            wins = [100 * row.wins["product"] for row in points]
            name = f"w = {w:g}, {'whole mixture' if line == '-' else 'guided points'}"
            right.plot(sigmas, wins, color=COLOURS["reg"], ls=line, label=name, **looks)
    inside = [row.sigma for row, yes in zip(guided[w], middle, strict=True) if yes]
    for ax in (left, right):
        ax.axvspan(min(inside), max(inside), color="#EEEEEE", zorder=0, lw=0)
        ax.set(xscale="log", xlabel="noise level")
        ax.grid(alpha=0.3)
    left.set(yscale="log", ylabel="error relative to golden's size (rms)")
    left.legend(frameon=False, fontsize=8, ncols=2, loc="lower right")
    right.axhline(50, color="black", lw=0.8, ls=":")
    right.set(ylabel="REG nearer to golden than CFG, % of points", ylim=(0, 103))
    right.legend(frameon=False, fontsize=8, loc="lower right")
    return made
