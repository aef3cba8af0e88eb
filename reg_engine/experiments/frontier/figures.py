"""The figure of the frontier: distance against cost, a row for each mixture and a column for each
weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...pictures.plots import OKABE_ITO
from ..figures import figure, level, outside_legend

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["fronts"]

# Colour by family, marker within it.
_LOOKS = {
    "unguided": ("grey", "x"),
    "cfg": ("vermillion", "o"),
    "interval": ("green", "^"),
    "low": ("green", "v"),
    "paper": ("blue", "s"),
    "vjp": ("blue", "D"),
    "fd_batched": ("blue", "p"),
    "lazy": ("sky", "<"),
    "alternate": ("sky", ">"),
    "lazy_blend": ("purple", "H"),
    "blend": ("purple", "h"),
    "characteristic": ("purple", "8"),
    "rayleigh": ("orange", "o"),
    "skipping": ("orange", "d"),
    "tilt": ("orange", "P"),
    "gibbs": ("black", "1"),
    "blend_gibbs": ("black", "2"),
    "golden": ("yellow", "*"),
}


def fronts(numbers: Mapping[str, Any]) -> Figure:
    """Energy distance in floors, with its deviation over seeds, against evaluations a sample; the
    dotted line is the floor."""
    mixtures, weights = numbers["mixtures"], numbers["setting"]["weights"]
    rows = len(mixtures)
    made, panels = figure(13, 2.9 * rows + 1, rows, len(weights), sharex=True, sharey="row")
    for line, (name, found) in zip(panels, mixtures.items(), strict=True):
        for column, axes in enumerate(line):
            floor = float(found["floor"][column])
            for method, result in found["methods"].items():
                colour, marker = _LOOKS[method]
                axes.errorbar(
                    result["cost"],
                    float(result["distance"][column]) / floor,
                    yerr=float(result["deviation"][column]) / floor,
                    fmt=marker,
                    color=OKABE_ITO[colour],
                    ms=6,
                    lw=0.8,
                    label=numbers["titles"][method].replace("`", ""),
                )
            level(axes, 1.0, ls=":")
            axes.set_yscale("log")
            axes.set_title(f"{name}, w = {weights[column]:g}", fontsize=10)
    outside_legend(made, panels[0, 0], columns=5)
    made.supxlabel("evaluations and backward passes a sample (F)")
    made.supylabel("energy distance to the target, in floors")
    return made
