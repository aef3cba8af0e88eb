"""One look for every figure: colour-blind safe, and one colour and marker for each method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..pictures.plots import OKABE_ITO, check_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "LABELS", "figure", "level", "outside_legend", "style"]

# What the eye compares gets colours far apart; lines of one family differ by their marker too.
_LOOKS: dict[str, tuple[str, str, str]] = {
    "target": ("black", "*", "target"),
    "golden": ("orange", "P", "golden"),
    "unguided": ("grey", "x", "unguided"),
    "cfg": ("vermillion", "o", "CFG"),
    "reg": ("blue", "s", "REG"),
    "cg": ("purple", "D", "classifier guidance"),
    "interval": ("green", "^", "interval"),
    "linear": ("sky", "v", "linear"),
    "cosine": ("yellow", "<", "cosine"),
    "autoguidance": ("black", ">", "autoguidance"),
    "real": ("grey", ".", "real"),
    "before": ("vermillion", "o", "before"),
    "postprocessed": ("green", "^", "postprocessed"),
    "class0": ("vermillion", ".", "class 0"),
    "class1": ("blue", ".", "class 1"),
}
COLOURS = {name: OKABE_ITO[colour] for name, (colour, _, _) in _LOOKS.items()}
LABELS = {name: label for name, (_, _, label) in _LOOKS.items()}


def style(method: str) -> dict[str, Any]:
    """colour, marker and label of a method, as keywords of `Axes.plot`."""
    colour, marker, label = _LOOKS[method]
    return {"color": OKABE_ITO[colour], "marker": marker, "label": label}


def figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **subplots: Any
) -> tuple[Figure, NDArray[Any]]:
    """A figure (inches) and its axes (rows, columns), without the upper and right spines.

    Raises:
        InputError: matplotlib is not installed.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), dpi=120, layout="constrained")
    axes: NDArray[Any] = np.asarray(made.subplots(rows, columns, squeeze=False, **subplots))
    for each in axes.flat:
        each.spines[["top", "right"]].set_visible(False)
    return made, axes


def level(axes: Axes, value: float = 0.0, **looks: Any) -> None:
    """A thin line behind the curves at a value that means something: no error, half of the wins."""
    axes.axhline(value, **{"color": "0.6", "lw": 0.8, "zorder": 0, **looks})


def outside_legend(made: Figure, axes: Axes, where: str = "upper center", columns: int = 4) -> None:
    """One legend for all panels, of what was drawn in `axes`, beside them."""
    looks: dict[str, Any] = {"loc": f"outside {where}", "ncols": columns, "frameon": False}
    made.legend(*axes.get_legend_handles_labels(), **looks)
