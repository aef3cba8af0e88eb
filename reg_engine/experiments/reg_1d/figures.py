"""Figures of the 1-D experiment: one step, all steps, and win ratios by weight and model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..figures import COLOURS, figure, level, outside_legend, style
from ..report import Report
from .fields import TABLE, WEIGHTS, mixture
from .page import AUTHORS, COMPARISONS, TIMES, TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMOOTH = ("golden", "cfg", "reg")
AXIS = r"added to $\epsilon$: $-\sigma_t\,\nabla\log\,(\cdot)$"
# Of `win_ratios`: comparison -> dash, marker, colour.
LOOKS = {
    "nets_limit": ("-", "s", COLOURS["reg"]),
    "exact_limit": ("--", "^", "0.45"),
    "exact_exact": (":", "*", "black"),
}


def draw_variant(report: Report, variant: str, x: Tensor, gradients: Mapping[str, Tensor]) -> None:
    """The figures `one_step_` and `all_steps_` of a pair of distributions.

    Args:
        x: (G, 1). gradients: chains, golden (their limit), cfg, reg: (rows, G, >= 1), score form.
    """
    result = report.numbers["variants"][variant]["nets_chains"][0]
    authors = AUTHORS["steps"] if variant == "shipped" else {}
    report.draw(f"one_step_{variant}", one_step(x, gradients, result, authors, variant))
    report.draw(f"all_steps_{variant}", all_steps(x, gradients))


def one_step(
    x: Tensor,
    gradients: Mapping[str, Tensor],
    result: Mapping[str, Any],
    authors: Mapping[int, float],
    variant: str,
    t: int = 13,
) -> Figure:
    """The paper's Fig. 1: gradients at step t; error and win ratio of every step.

    Args:
        x, gradients: as in `draw_variant`.
        result: of fields.compare, w = 1.
        authors: step -> win ratio of the authors' checkpoint; empty where there is none.
    """
    made, ((left, middle, right),) = figure(12.5, 3.9, 1, 3)
    index = TIMES.index(t)
    _curves(left, index, x, gradients)
    row = TABLE.rows[index]
    density = mixture(variant).log_prob(x.double(), row.alpha, row.sigma, 0).exp()
    low, high = _reach(gradients, [index])
    bottom = low - 0.3 * (high - low)
    left.set_ylim(bottom, high + 0.45 * (high - low))
    shade = bottom + 0.2 * (high - low) * density / density.max()
    left.fill_between(x[:, 0], bottom, shade, color="0.88", lw=0, label=r"$p_t(x\,|\,y)$, shape")
    left.set(xlabel=r"$x_t$", ylabel=AXIS, title=f"gradients at t = {t}")
    left.set_xlim(float(x[0]), float(x[-1]))
    left.legend(frameon=False, fontsize=9, ncols=2, loc="upper center")
    for name in ("cfg", "reg"):
        middle.plot(TIMES, result[name], **style(name))
    middle.set(ylabel=r"mean $\sigma_t\,|$gradient $-$ golden$|$", title="error at every step")
    middle.set_ylim(bottom=0)
    middle.legend(frameon=False)
    right.plot(TIMES, [100 * v for v in result["win"]], **{**style("reg"), "label": "this run"})
    if authors:
        looks = {"color": "black", "marker": "D", "mfc": "white", "ls": "none"}
        values = [100 * v for v in authors.values()]
        right.plot(list(authors), values, label="authors' checkpoint, re-measured", **looks)
    level(right, 50, lw=1, ls="--")
    right.set_ylim(25, 103)  # room for the legend
    right.set(ylabel="win ratio of REG over CFG, %", title="win ratio at every step")
    right.legend(frameon=False, loc="lower center", fontsize=9)
    for axes in (middle, right):
        _time_axis(axes)
        axes.set_xlabel("t (20: most noise)")
    return made


def all_steps(x: Tensor, gradients: Mapping[str, Tensor]) -> Figure:
    """The paper's Fig. 5: golden, CFG and REG gradients at all twenty steps, one scale for all."""
    made, panels = figure(12.5, 9.6, 4, 5, sharex=True, sharey=True)
    for index, axes in enumerate(panels.flat):
        _curves(axes, index, x, gradients)
        axes.set_title(f"t = {TIMES[index]}", fontsize=10)
        axes.set_xlim(float(x[0]), float(x[-1]))
    low, high = _reach(gradients, range(len(TABLE.rows)))
    panels[0, 0].set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
    outside_legend(made, panels[0, 0])
    made.supxlabel(r"$x_t$")
    made.supylabel(AXIS)
    return made


def win_ratios(variants: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Win ratio over the steps: a row for each pair of distributions, a column for each weight."""
    made, panels = figure(12.5, 6.6, len(variants), len(WEIGHTS), sharex=True, sharey=True)
    lowest = 50.0  # half of the points is always shown
    for line, (variant, comparisons) in zip(panels, variants.items(), strict=True):
        for column, axes in enumerate(line):
            for name, (dash, marker, colour) in LOOKS.items():
                values = [100 * v for v in comparisons[name][column]["win"]]
                looks = {"ls": dash, "marker": marker, "ms": 4.5, "color": colour}
                axes.plot(TIMES, values, label=COMPARISONS[name][2], **looks)
                lowest = min(lowest, *values)
            level(axes, 50, lw=1, ls="--")
            axes.set_title(f"{TITLES[variant]}, w = {WEIGHTS[column]:g}", fontsize=10)
            _time_axis(axes)
    panels[0, 0].set_ylim(lowest - 5, 103)
    outside_legend(made, panels[0, 0], columns=3)
    made.supxlabel("t (20: most noise)")
    made.supylabel("win ratio of REG over CFG, %")
    return made


def _curves(axes: Axes, index: int, x: Tensor, gradients: Mapping[str, Tensor]) -> None:
    """-sigma_t grad, the amount added to epsilon, of every kind at one row."""
    values = {name: -TABLE.rows[index].sigma * g[index, :, 0] for name, g in gradients.items()}
    pale: dict[str, Any] = {"lw": 1.0, "alpha": 0.5, "label": "golden, simulated"}
    axes.plot(x[:, 0], values["chains"], color=COLOURS["golden"], **pale)
    for name in SMOOTH:
        look = style(name) | {"marker": "", "lw": 2.8 if name == "golden" else 1.6}
        axes.plot(x[:, 0], values[name], **look)
    level(axes, color="0.8")


def _reach(gradients: Mapping[str, Tensor], rows: Sequence[int]) -> tuple[float, float]:
    """Lowest and highest smooth value in some rows: simulated ones may be cut."""
    values = [-TABLE.rows[i].sigma * gradients[name][i, :, 0] for name in SMOOTH for i in rows]
    return min(float(v.min()) for v in values), max(float(v.max()) for v in values)


def _time_axis(axes: Axes) -> None:
    """Steps in the order of sampling, from much noise to none."""
    axes.set_xlim(20.7, 0.3)
    axes.set_xticks([20, 16, 12, 8, 4, 1])
