"""Plots (matplotlib, from the `eval` extra): colour-blind safe, one meaning a colour and marker."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .errors import InputError

__all__ = ["save_evaluation"]

# Okabe-Ito, each with a marker of its own so that colour is never the only sign.
_STYLES = (("#D55E00", "o"), ("#0072B2", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"))


def save_evaluation(points: list[dict[str, Any]], path: Path) -> None:
    """Three panels: FID over scale, label agreement over scale, and FID against agreement.

    Args:
        points: dicts with method, scale, fid, label_agreement, low, high (95 % interval).
        path: the PNG to write, whole or not at all.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(
            "plot", "matplotlib is not installed", "pip install 'reg-engine[eval]'"
        ) from error
    figure = Figure(figsize=(12.5, 4.0), dpi=120, layout="constrained")
    fid_axes, share_axes, front = figure.subplots(1, 3)
    for (method, rows), (colour, marker) in zip(_by_method(points).items(), _STYLES, strict=False):
        style: dict[str, Any] = {"color": colour, "marker": marker, "label": method}
        scales = [r["scale"] for r in rows]
        share = [100 * r["label_agreement"] for r in rows]
        fid_axes.plot(scales, [r["fid"] for r in rows], **style)
        errors = [
            [100 * (r["label_agreement"] - r["low"]) for r in rows],
            [100 * (r["high"] - r["label_agreement"]) for r in rows],
        ]
        share_axes.errorbar(scales, share, yerr=errors, capsize=3, **style)
        front.plot(share, [r["fid"] for r in rows], **style)
        for row, x in zip(rows, share, strict=True):
            front.annotate(
                f"{row['scale']:g}",
                (x, row["fid"]),
                textcoords="offset points",
                xytext=(5, 4),
                fontsize=8,
                color=colour,
            )
    fid_axes.set(xlabel="guidance scale", ylabel="FID (classifier features), lower is better")
    share_axes.set(xlabel="guidance scale", ylabel="label agreement, % (95 % interval)")
    front.set(
        xlabel="label agreement, %",
        ylabel="FID (classifier features)",
        title="at matched agreement (numbers: scale)",
    )
    for axes in (fid_axes, share_axes, front):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    fid_axes.legend(frameon=False)
    part = path.with_name(path.name + ".part")
    figure.savefig(part, format="png")
    os.replace(part, path)


def _by_method(points: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for point in points:
        found.setdefault(point["method"], []).append(point)
    return {m: sorted(rows, key=lambda r: r["scale"]) for m, rows in found.items()}
