"""The page of the 1-D experiment from its numbers: tables, dependent sentences, claims."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..report import Report, table
from .fields import STEPS

TIMES = list(range(STEPS, 0, -1))  # as the paper counts
TITLES = {"shipped": "uncond -2, 0", "main": "uncond -1, 1"}
# Comparison -> whose gradients, which golden guidance they are compared with, and both in words.
COMPARISONS = {
    "nets_chains": ("nets", "chains", "networks; their chains, {} repeats (the paper's measure)"),
    "nets_deterministic": ("nets", "deterministic", "networks; one chain without noise"),
    "nets_limit": ("nets", "limit", "networks; infinitely many of their chains"),
    "nets_exact": ("nets", "exact", "networks; exact posterior"),
    "exact_limit": (
        "exact",
        "exact_limit",
        "exact denoisers; infinitely many of their chains",
    ),
    "exact_exact": ("exact", "exact", "exact denoisers; exact posterior"),
}
# The checkpoint that the authors released (github.com/zhengqigao/REG, 1d-toy), measured with 250
# points and 100 repeats: win ratio in % (two seeds), mean |error| (REG, CFG), and steps.
AUTHORS: dict[str, Any] = {
    "win": (81.1, 80.8),
    "win_deterministic": 79.8,
    "error": (0.248, 0.508),
    "rectifier_range": (0.05, 1.67),
    "epsilon_rmse_uncond": 0.09,
    "steps": {
        **{20: 0.61, 18: 0.69, 16: 0.80, 14: 0.91, 12: 0.91, 10: 0.96},
        **{8: 0.94, 6: 0.85, 4: 0.74, 2: 0.68, 1: 0.72},
    },
}


def write(report: Report) -> None:
    """The page, from report.numbers alone."""
    numbers = report.numbers
    setting, variants, networks = (numbers[key] for key in ("setting", "variants", "networks"))
    names = {"cond": "cond", **TITLES}
    found = {name: results["nets_chains"][0] for name, results in variants.items()}
    wins = [estimator["win_mean"] for estimator in numbers["estimators"].values()]
    report.page(
        Path(__file__).with_name("page.md"),
        epochs=setting["steps"] * setting["batch_size"] / setting["examples"],
        rmse=", ".join(f"{title}: {networks[n]['epsilon_rmse']:.3f}" for n, title in names.items()),
        summary=table(
            ["w = 1, means over 20 steps", "win ratio", "error of REG", "error of CFG"],
            [
                [f"{TITLES[name]}: {what}", f"{_percent(r)} %", r["reg_mean"], r["cfg_mean"]]
                for name, results in variants.items()
                for what, r in (
                    ("networks, golden by their chains", found[name]),
                    ("exact denoisers, golden by their chains", results["exact_limit"][0]),
                )
            ],
        ),
        estimator_wins=f"{100 * min(wins):.1f} to {100 * max(wins):.1f} %",
        right=_right_table(variants, setting["repeats"]),
        noise=" and ".join(f"{results['noise_of_chains'][0]:.3f}" for results in variants.values()),
        steps=_step_table(numbers),
        weights="; ".join(f"{TITLES[name]}: {_weights(r)}" for name, r in variants.items()),
        lost=_lost(variants),
        estimator_table=_estimator_table(numbers["estimators"]),
        ours=variants["shipped"],
        win={key: _percent(variants["shipped"][key][0]) for key in COMPARISONS},
    )


def _percent(result: Mapping[str, Any], key: str = "win_mean") -> str:
    return f"{100 * result[key]:.1f}"


def _right_table(variants: Mapping[str, Any], repeats: int) -> str:
    columns = ["data", "gradients; golden by", "win ratio, %", "where samples are, %"]
    rows = [
        [
            TITLES[name],
            words.format(repeats),
            *(_percent(results[key][0], share) for share in ("win_mean", "win_weighted_mean")),
            *(f"{results[key][0][error]:.3f}" for error in ("reg_mean", "cfg_mean")),
        ]
        for name, results in variants.items()
        for key, (_, _, words) in COMPARISONS.items()
    ]
    return table([*columns, "mean error of REG", "mean error of CFG"], rows)


def _step_table(numbers: Mapping[str, Any]) -> str:
    """Win ratios at the steps where the authors' checkpoint was measured."""
    ours = numbers["variants"]["shipped"]
    keys = ("nets_chains", "nets_limit", "exact_limit", "exact_exact")
    rows = []
    for t, value in AUTHORS["steps"].items():
        at = numbers["t"].index(t)
        wins = (f"{100 * share:.0f}" for share in (value, *(ours[k][0]["win"][at] for k in keys)))
        rows.append([str(t), f"{numbers['sigma'][at]:.3f}", *wins])
    nets = f"networks; {numbers['setting']['repeats']} chains"
    limits = ["networks; infinitely many", "exact denoisers; infinitely many"]
    columns = ["t", "sigma", "authors' checkpoint", nets, *limits, COMPARISONS["exact_exact"][2]]
    return table(columns, rows)


def _estimator_table(estimators: Mapping[str, Mapping[str, float]]) -> str:
    columns = ["estimator", "win ratio, %", "mean difference from `vjp`", "largest"]
    rows = [
        [
            f"`{name}`",
            f"{100 * found['win_mean']:.2f}",
            *(f"{found[f'{key}_difference']:.1e}" for key in ("mean", "largest", "near_zero")),
        ]
        for name, found in estimators.items()
    ]
    return table([*columns, "next to x = 0"], rows)


def _weights(results: Mapping[str, Any]) -> str:
    pairs = zip(results["nets_limit"], results["exact_limit"], strict=True)
    return ", ".join(f"{_percent(nets)} % ({_percent(exact)} %)" for nets, exact in pairs)


def _lost(variants: Mapping[str, Any]) -> str:
    """Steps where REG wins no more than half, exact denoisers: what no better network repairs."""

    def each() -> Iterator[str]:
        for name, results in variants.items():
            for result in results["exact_limit"]:
                steps = [str(t) for t, w in zip(TIMES, result["win"], strict=True) if w <= 0.5]
                if steps:
                    yield f"w = {result['w']:g} and {TITLES[name]} at t = {', '.join(steps)}"

    if not (found := "; ".join(each())):
        return "With exact denoisers REG wins more than half of the points at every step."
    return (
        f"Even with exact denoisers REG does not win half of the points for {found}: at high noise "
        "and large weight one point estimate of x_0 is a poor stand-in for all of them."
    )


def claims(report: Report) -> None:
    """Win ratios and errors of the trained networks against golden guidance by chains, w = 1."""
    numbers = report.numbers
    measured = {name: r["nets_chains"][0] for name, r in numbers["variants"].items()}
    report.claim(
        "win_ratio_half",
        "mean win ratio above 50 %, in both variants",
        all(m["win_mean"] > 0.5 for m in measured.values()),
        "; ".join(f"{_percent(m)} % ({TITLES[n]})" for n, m in measured.items()),
    )
    if not report.quick:  # a short training leaves network errors that cost wins
        report.claim(
            "win_ratio",
            "mean win ratio with uncond -2, 0 within 5 points of the authors' checkpoint "
            "(76 to 86 %)",
            76 <= 100 * measured["shipped"]["win_mean"] <= 86,
            f"{_percent(measured['shipped'])} %",
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
        "lowest: " + ", ".join(f"{100 * v:.0f} % ({TITLES[n]})" for n, v in lowest.items()),
    )
