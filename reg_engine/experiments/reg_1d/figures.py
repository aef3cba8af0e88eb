"""Figures of the 1-D experiment: one step, all steps, and win ratios by weight and model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..figures import COLOURS, figure, style
from .fields import TABLE, WEIGHTS, mixture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["TIMES", "all_steps", "one_step", "win_ratios"]

TIMES = [int(row.t) + 1 for row in TABLE.rows]  # 20 .. 1, as the paper counts
SMOOTH = ("golden", "cfg", "reg")


def _curves(axes: Axes, index: int, x: Tensor, gradients: Mapping[str, Tensor]) -> None:
    """-sigma_t grad, the amount added to epsilon, of every kind at one row."""
    row = TABLE.rows[index]
    values = {name: -row.sigma * g[index, :, 0] for name, g in gradients.items()}
    pale: dict[str, Any] = {
        "color": COLOURS["golden"],
        "lw": 1.0,
        "alpha": 0.5,
        "label": "golden, simulated",
    }
    axes.plot(x[:, 0], values["chains"], **pale)
    for name in SMOOTH:
        look = style(name) | {"marker": "", "lw": 2.8 if name == "golden" else 1.6}
        axes.plot(x[:, 0], values[name], **look)
    axes.axhline(0, color="0.8", lw=0.8, zorder=0)


def _reach(gradients: Mapping[str, Tensor], rows: Sequence[int]) -> tuple[float, float]:
    """Lowest and highest smooth value in some rows: simulated ones may be cut."""
    values = [-TABLE.rows[i].sigma * gradients[name][i, :, 0] for name in SMOOTH for i in rows]
    return min(float(v.min()) for v in values), max(float(v.max()) for v in values)


def one_step(
    x: Tensor,
    gradients: Mapping[str, Tensor],
    result: Mapping[str, Any],
    authors: Mapping[int, float],
    variant: str,
    t: int = 13,
) -> Figure:
    """The paper's Fig. 1: gradients at one step; error and win ratio of every step.

    Args:
        x: (G, 1). gradients: chains, golden (their limit), cfg, reg: (rows, G, >= 1), score form.
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
    left.set(
        xlabel=r"$x_t$",
        ylabel=r"added to $\epsilon$: $-\sigma_t\,\nabla\log\,(\cdot)$",
        title=f"gradients at t = {t}",
        xlim=(float(x[0]), float(x[-1])),
    )
    left.legend(frameon=False, fontsize=9, ncols=2, loc="upper center")
    for name in ("cfg", "reg"):
        middle.plot(TIMES, result[name], **style(name))
    middle.set(ylabel=r"mean $\sigma_t\,|$gradient $-$ golden$|$", title="error at every step")
    middle.set_ylim(bottom=0)
    middle.legend(frameon=False)
    right.plot(TIMES, [100 * v for v in result["win"]], **{**style("reg"), "label": "this run"})
    if authors:
        right.plot(
            list(authors),
            [100 * v for v in authors.values()],
            color="black",
            marker="D",
            mfc="white",
            ls="none",
            label="authors' checkpoint, re-measured",
        )
    _half(right)
    right.set(ylabel="win ratio of REG over CFG, %", title="win ratio at every step")
    right.legend(frameon=False, loc="lower center", fontsize=9)
    for axes in (middle, right):
        _time_axis(axes)
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
    handles, labels = panels[0, 0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
    made.supxlabel(r"$x_t$")
    made.supylabel(r"added to $\epsilon$: $-\sigma_t\,\nabla\log\,(\cdot)$")
    return made


def win_ratios(
    results: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]],
    lines: Mapping[str, str],
    titles: Mapping[str, str],
) -> Figure:
    """Win ratio over the steps: a row for each pair of distributions, a column for each weight.

    Args:
        results: variant -> comparison -> one entry of fields.compare for each weight.
        lines: comparison -> its label. titles: variant -> what it is called.
    """
    made, panels = figure(12.5, 6.6, len(results), len(WEIGHTS), sharex=True, sharey=True)
    looks = (("-", "s", COLOURS["reg"]), ("--", "^", "0.45"), (":", "*", "black"))
    for row, (variant, comparisons) in zip(panels, results.items(), strict=True):
        for column, axes in enumerate(row):
            for (name, label), (dash, marker, colour) in zip(lines.items(), looks, strict=True):
                values = [100 * v for v in comparisons[name][column]["win"]]
                axes.plot(TIMES, values, ls=dash, marker=marker, ms=4.5, color=colour, label=label)
            _half(axes)
            axes.set_title(f"{titles[variant]}, w = {WEIGHTS[column]:g}", fontsize=10)
            _time_axis(axes, label=False)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    made.supxlabel("t (20: most noise)")
    made.supylabel("win ratio of REG over CFG, %")
    return made


def _half(axes: Axes) -> None:
    axes.axhline(50, color="0.6", lw=1, ls="--", zorder=0)
    axes.set_ylim(25, 103)


def _time_axis(axes: Axes, label: bool = True) -> None:
    """Steps in the order of sampling, from much noise to none."""
    axes.set_xlim(20.7, 0.3)
    axes.set_xticks([20, 16, 12, 8, 4, 1])
    if label:
        axes.set_xlabel("t (20: most noise)")
