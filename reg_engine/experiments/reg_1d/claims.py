"""What the 1-D experiment claims, and the names of its two pairs of distributions."""

from __future__ import annotations

from ..report import Report

__all__ = ["VARIANT_TITLES", "claims"]

VARIANT_TITLES = {"shipped": "uncond -2, 0", "main": "uncond -1, 1"}


def claims(report: Report) -> None:
    """Win ratios and errors of the trained networks against golden guidance by chains, w = 1."""
    numbers = report.numbers
    variants = numbers["variants"]
    measured = {name: results["nets_chains"][0] for name, results in variants.items()}
    win = 100 * measured["shipped"]["win_mean"]
    names = VARIANT_TITLES
    report.claim(
        "win_ratio_half",
        "mean win ratio above 50 %, in both variants",
        all(m["win_mean"] > 0.5 for m in measured.values()),
        "; ".join(f"{100 * m['win_mean']:.1f} % ({names[n]})" for n, m in measured.items()),
    )
    if not report.quick:  # a short training leaves network errors that cost wins
        report.claim(
            "win_ratio",
            "mean win ratio with uncond -2, 0 within 5 points of the authors' checkpoint "
            "(76 to 86 %)",
            76 <= win <= 86,
            f"{win:.1f} %",
        )
    report.claim(
        "error",
        "REG's mean error is below CFG's, in both variants",
        all(m["reg_mean"] < m["cfg_mean"] for m in measured.values()),
        "; ".join(f"{m['reg_mean']:.3f} against {m['cfg_mean']:.3f}" for m in measured.values()),
    )
    top, bottom = numbers["sigma"][0], numbers["sigma"][-1]
    third = (top - bottom) / 3
    chosen = [i for i, s in enumerate(numbers["sigma"]) if bottom + third <= s <= top - third]
    lowest = {name: min(m["win"][i] for i in chosen) for name, m in measured.items()}
    steps = [numbers["t"][i] for i in chosen]
    report.claim(
        "middle_third",
        f"win ratio above 50 % at every step in the middle third of sigma (t = {min(steps)} to "
        f"{max(steps)}), in both variants",
        min(lowest.values()) > 0.5,
        "lowest: " + ", ".join(f"{100 * v:.0f} % ({names[n]})" for n, v in lowest.items()),
    )
