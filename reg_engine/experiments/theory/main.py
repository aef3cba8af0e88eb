"""`theory`: on mixtures where everything is known, what guidance should do, what CFG does, and what
REG repairs."""

from __future__ import annotations

from dataclasses import asdict

import torch

from ...oracles import GaussianMixture, one_d, two_class_2d
from ..report import Report
from . import figures as theory_figures
from . import figures_1d as theory_figures_1d
from .chains import two_class_1d
from .fields import (
    FieldErrors,
    field_errors,
    middle_third,
    renyi_sides,
    solver_levels,
)
from .samples import plans, samples
from .scaling import scaling
from .scores import GridGolden
from .tables import Size

__all__ = ["run"]

QUICK = Size(1024, 1, plan_weights=(2.0,), solver_steps=(8, 18), solvers=3, intervals=4)
FULL = Size(4096, 3)
FIELD_LEVELS = (1.5, 0.6, 0.25)
RENYI_LEVELS = (2.0, 0.6, 0.2, 0.05, 0.02)


def run(report: Report) -> None:
    """The page, its figures and claims; on one thread about half a minute quick, 6 minutes full."""
    size = QUICK if report.quick else FULL
    mixture = two_class_2d()
    report.text(
        "Guidance with weight w (the scale minus 1) is meant to produce the *tilted target*, "
        "p(x_0 given y)^(1+w) / p(x_0)^w. On Gaussian mixtures that target, the exact denoiser and "
        "the optimal (*golden*) guidance grad log E_t are all known, so the approximations can be "
        "told apart from the network's errors: there is no network here. CFG uses grad log R_t, "
        "R_t = (p(x_t given y)/p(x_t))^w; REG multiplies that by K = alpha_t d denoised / d x_t."
    )
    samples(report, mixture, size)
    scaling(report)
    _renyi(report)
    _fields(report, mixture)
    plans(report, mixture, size)
    _against(report)


def _renyi(report: Report) -> None:
    """Both sides of the identity on both 1-D mixtures."""
    x = torch.linspace(-1.5, 2.0, 71, dtype=torch.float64)
    rows: list[list[object]] = []
    worst = 0.0
    for name, mixture in (("paper's 1-D", one_d()), ("two classes", two_class_1d())):
        for sigma in RENYI_LEVELS:
            row: list[object] = [name, sigma]
            for w in (1.0, 2.0, 4.0):
                gap, term, cfg = renyi_sides(mixture, x, 1.0, sigma, w)
                density = mixture.log_prob(x[:, None], 1.0, sigma, 0).exp()
                sizes = [float((density * v.square()).sum().sqrt()) for v in (gap, cfg)]
                row.append(sizes[0] / sizes[1])
                worst = max(worst, float((gap - term).abs().max() / gap.abs().max()))
            rows.append(row)
    report.section(
        "What CFG leaves out: a Renyi divergence",
        "grad log E_t - grad log R_t = w grad D_{1+w}(p(x_0 given x_t, y) || p(x_0 given x_t)). "
        "The left side comes from the golden guidance's own quadrature, the right side from the "
        "divergence, differentiated: two computations that share nothing.",
    )
    report.figure(
        "renyi",
        theory_figures_1d.renyi(two_class_1d(), RENYI_LEVELS[:3]),
        "Lines: golden minus CFG guidance, in units of x. Circles: the Renyi term. Grey: density "
        "of x_t. The two are one curve at every noise level and weight.",
    )
    report.table(
        ["setting", "noise level", "w = 1", "w = 2", "w = 4"],
        rows,
        "Size of the missing term relative to CFG's guidance (root mean square where x_t is). It "
        "fades as the noise goes, and is nearly as large as CFG's guidance where there is much.",
    )
    report.numbers["renyi"] = {"rows": rows, "largest_relative_error": worst}
    report.claim(
        "renyi_identity",
        "golden guidance minus CFG is w times the gradient of the Renyi divergence",
        worst < 1e-8,
        f"largest difference {worst:.0e} of the term's size",
    )


def _fields(report: Report, mixture: GaussianMixture) -> None:
    """Fields, their errors over noise levels, and the win ratio."""
    levels = solver_levels()
    middle = middle_third(levels)
    count = 1024 if report.quick else 8192
    found: dict[str, dict[float, list[FieldErrors]]] = {"all": {}, "guided": {}}
    for w in FULL.weights:
        golden = GridGolden(mixture, w)
        starts = {
            "all": mixture.sample(count, None, report.generator(1)),
            "guided": mixture.target_sampler(w)(count, report.generator(2)),
        }
        noise = torch.randn(count, 2, dtype=torch.float64, generator=report.generator(3))
        for kind, x in starts.items():
            found[kind][w] = [field_errors(golden, x + s * noise, s) for s in levels]
    excess = [rows[0].cfg.length for rows in found["guided"].values()]
    report.say("fields")
    report.section(
        "Guidance fields, and who is nearer to golden",
        "What each guidance adds to the denoised estimate: w (cond - ref) for CFG, K times that "
        "for REG. Where there is much noise golden guidance is weak, CFG too strong by a factor of "
        f"{min(excess):.1f} to {max(excess):.1f} (over w), and REG off; where there "
        "is little, all agree. REG's own flaw is seen there: where one Gaussian of each class "
        "counts, all of one deviation s, grad log R_t *is* grad log E_t, and K only shrinks it, by "
        "s^2/(s^2 + sigma^2). The gain comes from where several components compete.",
    )
    report.figure(
        "fields",
        theory_figures.guidance_fields(GridGolden(mixture, 2.0), FIELD_LEVELS),
        "w = 2; arrows to one scale in each row. Contours: density of x_t, class 0 dark, class 1 "
        "light. CFG's arrows are too long; K shortens them the more, the noisier, and "
        "turns them towards golden where clusters of the class compete.",
    )
    rows = [
        [row.sigma, row.cfg.angle, row.reg["product"].angle, row.cfg.length]
        + [row.reg["product"].length, row.cfg.relative, row.reg["product"].relative]
        for row in found["guided"][2.0]
    ]
    report.table(
        ["noise level", "angle CFG", "angle REG", "length CFG", "length REG"]
        + ["error CFG", "error REG"],
        rows[::2],
        "Against golden at w = 2, at points of the guided distribution: mean angle in degrees "
        "(weighted by golden's length), length over golden's, root mean square error over golden's "
        "size. Every other level of the solver. At high noise CFG points better than REG "
        f"({rows[0][1]:.0f} degrees against {rows[0][2]:.0f}) and is {rows[0][3]:.1f} times as "
        "long as golden; REG does next to nothing there.",
    )
    report.figure(
        "errors",
        theory_figures.errors(found["guided"], found["all"], middle),
        "Left: REG's error is below CFG's at every noise level (points of the guided "
        "distribution). Right: share of points where REG "
        "is nearer, at points x_t of the whole mixture (solid) and of the guided distribution "
        "(dashed). Below noise level 0.1 CFG is nearer at more points of the guided "
        "distribution, by little. Grey: the middle third of the log noise levels.",
    )
    _win_table(report, found, levels, middle)


def _win_table(
    report: Report,
    found: dict[str, dict[float, list[FieldErrors]]],
    levels: list[float],
    middle: list[bool],
) -> None:
    inside = [k for k, yes in enumerate(middle) if yes]
    ws = list(found["all"])
    rows: list[list[object]] = []
    for kind, label in (("all", "whole mixture"), ("guided", "guided")):
        for w in ws:
            wins = [100 * min(found[kind][w][k].wins.values()) for k in inside]
            rows.append([label, f"{w:g}", *(f"{share:.0f}" for share in wins)])
    report.table(
        ["points", "w", *(f"sigma {levels[k]:.2g}" for k in inside)],
        rows,
        "Win ratio of REG over CFG, %, in the middle third of the range of log sigma: the least of "
        "the three forms (K delta, column sums, diagonal). Points are x_0 + sigma noise, x_0 of "
        "the whole mixture (all that class and reference cover; the paper takes a grid) or of the "
        "tilted target (where a guided chain should stand).",
    )
    report.numbers["levels"], report.numbers["middle_third"] = levels, middle
    report.numbers["field_errors"] = {
        kind: {f"{w:g}": [asdict(row) for row in rows] for w, rows in by_w.items()}
        for kind, by_w in found.items()
    }
    for kind, where in (("all", "of the whole mixture"), ("guided", "of the guided distribution")):
        least = {w: min(min(found[kind][w][k].wins.values()) for k in inside) for w in ws}
        report.claim(
            f"win_ratio_{kind}",
            "the win ratio is above 50 % at every step with sigma in the middle third, at points "
            + where,
            all(value > 0.5 for value in least.values()),
            "least " + ", ".join(f"{100 * v:.0f} % at w = {w:g}" for w, v in least.items()),
        )
    shares = [
        (row.sigma, row.reg["product"].relative / row.cfg.relative)
        for by_w in found.values()
        for compared in by_w.values()
        for row in compared
    ]
    above = max(share for sigma, share in shares if sigma > 0.05)
    below = max(share for sigma, share in shares if sigma <= 0.05)
    report.claim(
        "reg_error_smaller",
        "REG's error against golden (root mean square) is smaller than CFG's at every noise level "
        "above 0.05, and nowhere larger by more than 3 %",
        above < 1 and below < 1.03,
        f"largest ratio {above:.2f} above, {below:.3f} below",
    )


def _against(report: Report) -> None:
    report.section(
        "Against the paper",
        "REG (Gao et al., ICML 2025, arXiv 2501.18865) argues that marginal scaling cannot be "
        "had (App. B) and proves Theorem 4.1; the numbers above agree with both: the joint kernels "
        "close to rounding, CFG's miss by an amount that no number of steps removes. The Renyi "
        "identity is derived here; how it relates to the paper's Theorems 4.2 and 4.3, which bound "
        "the same error, we cannot say (Moufad et al., arXiv 2505.21101, name the missing term). "
        "The paper's toys train networks. There is none here, so that what is left of REG's "
        "distance at w = 4 is REG's own: log E_t is replaced by log R_0 at one point, and its "
        "gradient by that of log R_t. We know of no figure in the paper to set beside these energy "
        "distances. Interval guidance takes the interval of the authors' EDM2 runs, which was "
        "chosen for ImageNet; the row tuned on the score itself shows what choosing it can give: "
        "on this mixture it beats K delta at w = 0.5 and 4, and no single interval does at all w.",
    )
