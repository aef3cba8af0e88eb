"""Figures of `theory` in one dimension: marginal against joint scaling, and the Renyi gap."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...oracles import GaussianMixture
from ...pictures.plots import OKABE_ITO
from ..figures import COLOURS, figure, style
from .chains import Chain, Gap
from .fields import renyi_sides

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHADES = (OKABE_ITO["sky"], OKABE_ITO["blue"], OKABE_ITO["black"])


def renyi(
    mixture: GaussianMixture, levels: Sequence[float], weights: Sequence[float] = (1.0, 2.0, 4.0)
) -> Figure:
    """Both sides of the identity over x, and what CFG uses instead of the sum."""
    made, axes = figure(12.5, 3.9, 1, len(levels))
    x = torch.linspace(-2.2, 2.2, 241, dtype=torch.float64)
    for ax, sigma in zip(axes[0], levels, strict=True):
        seen = mixture.log_prob(x[:, None], 1.0, sigma, 0).exp()
        ax.fill_between(x, seen / seen.max(), color="#E6E6E6", lw=0, transform=_lower(ax))
        for w, colour in zip(weights, SHADES, strict=True):
            gap, term, _ = renyi_sides(mixture, x, 1.0, sigma, w)
            ax.plot(x, sigma**2 * gap, color=colour, lw=1.4, label=f"w = {w:g}")
            ax.plot(x[::12], sigma**2 * term[::12], "o", color=colour, ms=4, mfc="white")
        ax.axhline(0, color="black", lw=0.6)
        ax.set(xlabel="x_t", title=f"noise level {sigma:g}", xlim=(-2.2, 2.2))
    axes[0, 0].set_ylabel("sigma^2 (grad log E - grad log R)")
    axes[0, min(1, len(levels) - 1)].legend(frameon=False, fontsize=9, loc="upper left")
    return made


def _lower(ax: Any) -> Any:
    """x in data, y in a quarter of the panel."""
    from matplotlib.transforms import Affine2D, blended_transform_factory

    quarter = Affine2D().scale(1, 0.25) + ax.transAxes
    return blended_transform_factory(ax.transData, quarter)


def scaling(
    paper: Chain,
    ours: Chain,
    gaps: Mapping[str, Mapping[str, Sequence[Gap]]],
    sums: Mapping[str, Sequence[tuple[int, float]]],
) -> Figure:
    """Implied next to demanded, step by step, over steps, and where whole chains end.

    Args:
        paper, ours: chains of the two 1-D settings.
        gaps: setting -> "cfg" or "golden" -> the gap of every step.
        sums: "cfg" or "golden" -> (steps, summed mean gap) of our setting.
    """
    made, axes = figure(13.5, 7.6, 2, 3)
    _demanded(axes[0, 0], paper, 13, "the paper's 1-D setting, w = {:g}, step 13 to 12")
    middle = round(0.45 * (len(ours.levels) - 1))
    _demanded(axes[0, 1], ours, middle, "two classes, w = {:g}, noise level {:.2g}")
    names = {"cfg": "marginal (CFG)", "golden": "joint (golden)"}
    ax = axes[0, 2]
    for setting, filled in (("paper", True), ("two classes", False)):
        for kind, name in names.items():
            rows = gaps[setting][kind][1:]  # the clean level has no place on a log axis
            looks = style(kind) | {"label": f"{name}, {setting}", "ms": 4}
            looks |= {} if filled else {"mfc": "white", "ls": "--"}
            ax.plot([g.noise for g in rows], [g.mean for g in rows], **looks)
    ax.set(xscale="log", yscale="log", xlabel="noise level after the step")
    ax.set(ylabel="mean |log(implied / demanded)|, nats")
    ax.set_title("mismatch of every single step", fontsize=10)
    ax.legend(frameon=False, fontsize=8)
    ax = axes[1, 0]
    for kind, name in names.items():
        ax.plot(*zip(*sums[kind], strict=True), **style(kind) | {"label": name})
    ax.set(xscale="log", yscale="log", xlabel="steps", ylabel="sum of the means, nats")
    ax.set_title(f"mismatch summed over the chain, two classes, w = {ours.w:g}", fontsize=10)
    ticks = [n for n, _ in sums["cfg"]]
    ax.set_xticks(ticks, [str(n) for n in ticks])
    ax.minorticks_off()
    ax.set_ylim(bottom=0.5 * min(v for _, v in sums["golden"]))
    ax.legend(frameon=False, fontsize=9)
    _ends(axes[1, 1], ours)
    _ratio(axes[1, 2], ours)
    return made


def _demanded(ax: Any, chain: Chain, t: int, title: str) -> None:
    """Demanded and implied log R at level t - 1, where the demanded density is visible."""
    wanted = chain.log_marginal_reward(t - 1)
    found = chain.implied(t, chain.log_marginal_reward(t), chain.guidance(t, "cfg"))
    density = (chain.log_density(t - 1) + wanted).softmax(0)
    seen = density > 0.01 * density.max()
    share = density * seen / density[seen].sum()
    x = chain.x[seen]
    wanted, found = (
        v[seen] - float((share * v).nan_to_num(0.0)[seen].sum()) for v in (wanted, found)
    )
    ax.fill_between(x, density[seen] / density.max(), color="#E6E6E6", lw=0, transform=_lower(ax))
    ax.plot(x, wanted, color="black", lw=2, label="demanded")
    ax.plot(x, found, color=COLOURS["cfg"], lw=2, ls="--", label="implied by the kernel")
    ax.set(xlabel="x", ylabel="log R, mean removed")
    ax.set_title(title.format(chain.w, chain.levels[t - 1].noise), fontsize=10)
    ax.legend(frameon=False, fontsize=9)


def _ends(ax: Any, chain: Chain) -> None:
    """Densities of x_0 where the whole chains end."""
    seen = chain.x.abs() < 1.9
    target = chain.target()
    ax.fill_between(chain.x[seen], target[seen], color="#DDDDDD", lw=0, label="target")
    for kind in ("unguided", "cfg", "reg", "golden"):
        end = chain.run(kind)
        looks = style(kind) | {"marker": "", "lw": 1.6}
        looks["label"] = f"{looks['label']}: {chain.distance(end):.2f} from it"
        ax.plot(chain.x[seen], end[seen], **looks)
    ax.set(xlabel="x_0", ylabel="density", ylim=(0, 1.35 * float(target.max())))
    ax.set_title(
        f"where {len(chain.levels) - 1} steps end, two classes, w = {chain.w:g}", fontsize=10
    )
    ax.legend(frameon=False, fontsize=8, loc="upper right")


def _ratio(ax: Any, chain: Chain) -> None:
    """log(E / R), what CFG forgets, at several noise levels."""
    last = len(chain.levels) - 1
    for share, colour in zip((0.75, 0.5, 0.25), SHADES, strict=True):
        t = round(share * last)
        density = chain.log_density(t)
        seen = density > density.max() - math.log(1000.0)
        gap: Tensor = (chain.log_joint_reward(t) - chain.log_marginal_reward(t))[seen]
        ax.plot(chain.x[seen], gap, color=colour, label=f"noise level {chain.levels[t].noise:.2g}")
    ax.set(xlabel="x_t", ylabel="log E - log R")
    ax.set_title("what CFG leaves out: w times a Renyi divergence", fontsize=10)
    ax.legend(frameon=False, fontsize=9)
