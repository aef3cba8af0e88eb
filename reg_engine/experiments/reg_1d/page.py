"""The page of the 1-D experiment: what is asked, figures, tables, claims, and the paper's side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..report import Report
from .claims import VARIANT_TITLES as TITLES
from .claims import claims
from .figures import TIMES, all_steps, one_step, win_ratios

__all__ = ["AUTHORS", "COMPARISONS", "write"]

# Comparison -> (whose gradients, which golden guidance they are compared with).
COMPARISONS = {
    "nets_chains": ("nets", "chains"),
    "nets_deterministic": ("nets", "deterministic"),
    "nets_limit": ("nets", "limit"),
    "nets_exact": ("nets", "exact"),
    "exact_limit": ("exact", "exact_limit"),
    "exact_exact": ("exact", "exact"),
}
WORDS = {
    "nets_chains": "networks; their chains, {repeats} repeats (the paper's measure)",
    "nets_deterministic": "networks; one chain without noise",
    "nets_limit": "networks; infinitely many of their chains",
    "nets_exact": "networks; exact posterior",
    "exact_limit": "exact denoisers; infinitely many of their chains",
    "exact_exact": "exact denoisers; exact posterior",
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
INTRO = """
REG replaces the guidance that theory asks for, the gradient of log E_t, by a rectified CFG
gradient. In one dimension the former can be computed by brute force, so the paper's first figure
asks: at how many points is REG closer to it than CFG is? That share is the **win ratio**; above
50 % REG is the better approximation.
"""
SETTING = """
p(x|y) is a mixture of two Gaussians with means 0.5 and 1.5 and deviation 0.25. The unconditional
distribution is not one that contains p(x|y), but a mixture of its own, in two variants: means -2
and 0, as in the checkpoint that the authors released, and means -1 and 1, as in their `main.py`;
deviation 0.5 in both (the value of both sources). T = 20 steps, beta linear from 1e-4 to 0.02, so
that sigma is only {sigma:.3f} at the noisiest step: x_20 is far from white noise, and the chain
says something about gradients, not about sampling. Gradients are compared for x in [-1, 2] on
{points} points, at every step, with w = 1 as in the paper, and w = 2 and 4 as an extension.

The networks are the paper's kind ({parameters:,} parameters: sines and cosines of the input times
25 and of the step, three residual GELU blocks of width 128), one for p(x|y) and one for each
unconditional distribution. Each was trained on 8000 fixed samples for {steps} steps of AdamW (1e-3)
with batches of {batch}: {epochs:.0f} epochs, where the authors take 200 with batches of 64. The
cosine rate, the averaging of weights and the plain x beside its sinusoids are ours. Error of the
predicted noise on fresh data (root mean square): {rmse}.

**Golden** gradients are computed in four ways. *Chains*: the whole remaining DDPM chain of the
conditional network is simulated {repeats} times from every point with the posterior's variance,
log R_0 = w log p(x_0|y)/p(x_0) is averaged by logsumexp with the exact densities, and
differentiated through the chain: the paper's way. *One chain without noise*: the same with the mean
of every step. *Infinitely many chains*: the same expectation without sampling noise, as an integral
on a grid, step by step. *Exact posterior*: a quadrature over the true p(x_0|x_t, y), without chain
or network. Gradients are those of sigma_t log(...), in the units of epsilon.
"""


def write(
    report: Report,
    repeats: int,
    goldens: Mapping[str, Mapping[str, Tensor]],
    gradients: Mapping[str, Mapping[str, tuple[Tensor, Tensor]]],
    x: Tensor,
) -> None:
    """Sections, figures and claims from report.numbers; goldens etc. as main.py makes them."""
    numbers = report.numbers
    numbers["authors"] = AUTHORS
    report.text(INTRO)
    report.section("Setting", _setting(numbers))
    report.section("One step, and every step")
    variants = numbers["variants"]
    for name in variants:
        shown = {
            "chains": goldens[name]["chains"],
            "golden": goldens[name]["limit"],
            **dict(zip(("cfg", "reg"), gradients[name]["nets"], strict=True)),
        }
        authors = AUTHORS["steps"] if name == "shipped" else {}
        figure = one_step(x, shown, variants[name]["nets_chains"][0], authors, name)
        report.figure(f"one_step_{name}", figure, _one_step_caption(name))
        report.figure(f"all_steps_{name}", all_steps(x, shown), _all_steps_caption(name))
    _tables(report, repeats)
    lines = {
        "nets_limit": "networks; infinitely many of their chains",
        "exact_limit": "exact denoisers; infinitely many of their chains",
        "exact_exact": "exact denoisers; exact posterior",
    }
    report.section("Larger weights, and what the networks add", _weights_text(variants))
    report.figure("win_ratios", win_ratios(variants, lines, TITLES), WIN_CAPTION)
    _estimators(report)
    _paper(report)
    claims(report)


def _setting(numbers: Mapping[str, Any]) -> str:
    setting, nets = numbers["setting"], numbers["networks"]
    names = {"cond": "cond", "shipped": "uncond -2, 0", "main": "uncond -1, 1"}
    return (
        SETTING.format(
            sigma=setting["sigma_max"],
            points=setting["points"],
            repeats=setting["repeats"],
            parameters=nets["parameters"],
            steps=setting["steps"],
            batch=setting["batch_size"],
            epochs=setting["steps"] * setting["batch_size"] / setting["examples"],
            rmse=", ".join(f"{names[n]}: {nets[n]['epsilon_rmse']:.3f}" for n in names),
        )
        .replace("\n", " ")
        .replace("  ", "\n\n")
    )


def _one_step_caption(name: str) -> str:
    return (
        f"{TITLES[name]}, w = 1 (as the paper's Fig. 1). Left: the golden gradient, as simulated "
        "by chains (pale) and for infinitely many (line), and what REG and CFG make of it; grey is "
        "where conditional samples are at this step. Middle: error against the simulated one, "
        "averaged over x in [-1, 2]. Right: the share of points where REG is closer; sampling goes "
        "from left to right."
    )


def _all_steps_caption(name: str) -> str:
    return (
        f"{TITLES[name]}, w = 1, all steps on one scale (as the paper's Fig. 5). At high noise CFG "
        "is far from the golden gradient; towards low noise all agree, and what is left at t = 1 "
        "is the networks' error. Pale: the golden gradient as simulated, with its sampling noise."
    )


WIN_CAPTION = (
    "Win ratio for three weights. Blue: trained networks. Grey: the same chain with exact "
    "denoisers, so that no network error is left. Black: the exact posterior instead of the "
    "20-step chain. Where blue lies below grey the networks are to blame, mostly at low noise."
)


def _tables(report: Report, repeats: int) -> None:
    variants = report.numbers["variants"]
    rows = [
        [TITLES[v], WORDS[key].format(repeats=repeats), *_summary(results[key][0])]
        for v, results in variants.items()
        for key in COMPARISONS
    ]
    columns = ["data", "gradients; golden by", "win ratio, %", "where samples are, %"]
    report.section("Who is right, and by how much")
    report.table(
        [*columns, "mean error of REG", "mean error of CFG"],
        rows,
        "w = 1, means over 20 steps. *Where samples are* counts every point by p_t(x|y), which "
        "leaves out most x below 0, where the conditional network saw no data. Errors are of "
        f"sigma_t times the gradient; {repeats} chains leave sampling noise of "
        + " and ".join(f"{variants[v]['noise_of_chains'][0]:.3f}" for v in variants)
        + " (mean) in the golden gradient.",
    )
    times, ours = report.numbers["t"], variants["shipped"]
    steps: dict[int, float] = AUTHORS["steps"]
    keys = ("nets_chains", "nets_limit", "exact_limit", "exact_exact")
    per_step = [
        [
            str(t),
            f"{report.numbers['sigma'][times.index(t)]:.3f}",
            f"{100 * value:.0f}",
            *(f"{100 * ours[key][0]['win'][times.index(t)]:.0f}" for key in keys),
        ]
        for t, value in steps.items()
    ]
    report.table(
        [
            *["t", "sigma", "authors' checkpoint", f"networks; {repeats} chains"],
            *["networks; infinitely many", "exact denoisers; infinitely many"],
            "exact denoisers; exact posterior",
        ],
        per_step,
        "Win ratio in % at single steps, uncond -2, 0, w = 1. The authors' checkpoint was measured "
        "with 250 points and 100 repeats.",
    )


def _summary(result: Mapping[str, Any]) -> list[object]:
    shares = [f"{100 * result[key]:.1f}" for key in ("win_mean", "win_weighted_mean")]
    return [*shares, f"{result['reg_mean']:.3f}", f"{result['cfg_mean']:.3f}"]


def _weights_text(variants: Mapping[str, Any]) -> str:
    parts = []
    for name, results in variants.items():
        found = ", ".join(
            f"{100 * r['win_mean']:.1f} % ({100 * e['win_mean']:.1f} %)"
            for r, e in zip(results["nets_limit"], results["exact_limit"], strict=True)
        )
        parts.append(f"{TITLES[name]}: {found}")
    return (
        "Mean win ratio at w = 1, 2 and 4 of the networks, and in brackets of exact denoisers, "
        f"golden by infinitely many chains. {'; '.join(parts)}. {_lost(variants)} "
        "The released code multiplies by w after the logsumexp instead of inside. CFG, REG and "
        "that golden gradient are then all proportional to w, and the win ratio would be that of "
        "w = 1 whatever w is; so it is for one chain without noise."
    )


def _lost(variants: Mapping[str, Any]) -> str:
    """Steps where REG wins no more than half, exact denoisers: what no better network repairs."""
    found = []
    for name, results in variants.items():
        for result in results["exact_limit"]:
            steps = [t for t, win in zip(TIMES, result["win"], strict=True) if win <= 0.5]
            if steps:
                listed = ", ".join(map(str, steps))
                found.append(f"w = {result['w']:g} and {TITLES[name]} at t = {listed}")
    if not found:
        return "With exact denoisers REG wins more than half of the points at every step."
    return (
        f"Even with exact denoisers REG does not win half of the points for {'; '.join(found)}: at "
        "high noise and large weight one point estimate of x_0 is a poor stand-in for all of them."
    )


def _estimators(report: Report) -> None:
    rows = [
        [
            f"`{name}`",
            f"{100 * found['win_mean']:.2f}",
            *(f"{found[f'{key}_difference']:.1e}" for key in ("mean", "largest", "near_zero")),
        ]
        for name, found in report.numbers["estimators"].items()
    ]
    low, high = report.numbers["rectifier_range"]["nets"]
    exact_low, exact_high = report.numbers["rectifier_range"]["exact"]
    report.section(
        "Estimators",
        "In one dimension the rectifier K is a single number: column sums (`paper`), the diagonal "
        "and the products with delta are the same thing, and they agree up to rounding. On this "
        f"grid K lies in [{low:.2f}, {high:.2f}] for the network and in [{exact_low:.2f}, "
        f"{exact_high:.2f}] for the exact denoiser (authors' checkpoint: 0.05 to 1.67). Finite "
        "differences step by rho times the root mean square of the sample, which is |x| here, but "
        "by no less than rho sigma / 10: without that the step would drown in float32 rounding "
        "next to x = 0.",
    )
    report.table(
        ["estimator", "win ratio, %", "mean difference from `vjp`", "largest", "next to x = 0"],
        rows,
        "Networks, uncond -2, 0, w = 1, golden by infinitely many chains; differences as a share "
        "of the step's mean |REG gradient|, mean and largest for |x| > 0.02, and the largest of "
        "the points that are left.",
    )


def _paper(report: Report) -> None:
    ours = report.numbers["variants"]["shipped"]
    chains, path, exact = (
        ours[key][0] for key in ("nets_chains", "nets_deterministic", "exact_limit")
    )
    rmse = report.numbers["networks"]["shipped"]["epsilon_rmse"]
    report.section(
        "Against the paper",
        "The paper shows REG's gradient close to the golden one and CFG's far from it (Fig. 1 and "
        "5), and calls a win ratio above 50 % a consistent improvement. We see the same. The "
        "number in its Table 1 is not known to us; the checkpoint released with it is, and gives "
        f"{AUTHORS['win'][0]} and {AUTHORS['win'][1]} % (two seeds; ours "
        f"{100 * chains['win_mean']:.1f} %), {AUTHORS['win_deterministic']} % with one chain "
        f"without noise (ours {100 * path['win_mean']:.1f} %), and mean errors of "
        f"{AUTHORS['error'][0]} for REG and {AUTHORS['error'][1]} for CFG (ours "
        f"{chains['reg_mean']:.3f} and {chains['cfg_mean']:.3f}). What the paper does not "
        "separate: part of the points that REG loses are lost by the networks. With exact "
        f"denoisers the win ratio is {100 * exact['win_mean']:.1f} %; our unconditional network's "
        f"error is {rmse:.3f}, the checkpoint's {AUTHORS['epsilon_rmse_uncond']} (root mean "
        "square, predicted noise).",
    )
