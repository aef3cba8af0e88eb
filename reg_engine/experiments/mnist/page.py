"""The page of the `mnist` experiment, section by section; claims.py says what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..report import Report
from .claims import levels, matched_rows
from .figures import draw_estimators, draw_fronts, draw_scales
from .fronts import difference, front_of
from .grid import CHEAP, CLASSIFIER_METHODS, INTERVAL, METHODS, Point
from .measures import Measured
from .models import Models
from .sampling import TOLERANCE, Sampling

__all__ = [
    "estimators",
    "every_point",
    "fronts",
    "introduction",
    "title",
    "without_data",
]

QUESTION = """
Does REG make better images, or does it only weaken the guidance? At *equal scale* any weakening
of guidance looks good. So every method is sampled over its scales, and compared at *equal
confidence*: the front of FID against how sure a classifier is of the label.
"""
QUICK = (
    "A quick run: FID of so few samples means little, and nothing is concluded from it. It shows "
    "that every method, REG on it, and postprocessing run."
)
MEASURES = """
* **FID** (Heusel et al. 2017) in the 128 features of the packaged classifier, the *judge*, against
  {real}. It compares with no other FID. No guide is the judge.
* **Agreement**: share of samples that the judge reads as the label that they were made for.
* **Confidence**: the mean log-odds ln(p / (1 - p)) that the judge gives to that label. Agreement
  and mean probability saturate at 100 %; log-odds do not.
* **Precision, recall** (Kynkaanniemi et al. 2019, k = 3) in the same features.
* **Error bars** are 95 %: 1.96 deviations of a bootstrap over samples, within labels, the real
  images fixed. Samples of one seed start from one noise, so differences are paired.
* **Evaluations** are network evaluations a sample; a guide's or a worse model's count like one of
  the model's own, though they are cheaper.
"""


def title(point: Point) -> str:
    """A point in words."""
    reg = " + REG" if point.rectified else ""
    sign = "w" if point.method in CLASSIFIER_METHODS else "scale"
    return f"{METHODS[point.method]}{reg}, {sign} {point.scale:g}"


def introduction(report: Report, sampling: Sampling, models: Models, real: bool) -> None:
    """What is asked, and the setting."""
    report.text(QUESTION)
    size = "" if report.quick else " (1,000 on a CPU over a thinner grid, 10,000 on a GPU)"
    report.section(
        "Setting",
        f"The packaged MNIST U-Net (EDM preconditioning), "
        f"**{sampling.count:,} samples a point**{size}, as many of each digit, the same seeds at "
        f"every point; {sampling.solver}, {sampling.steps} steps at the noise levels "
        f"{', '.join(f'{t:g}' for t in sampling.times)}: half of them where a digit takes its "
        "shape, so that few evaluations do (the table of estimators has Heun's with many more). "
        f"REG on the fronts is the estimator `{CHEAP}`.",
    )
    report.text(
        MEASURES.format(
            real="the images of MNIST's test set" if real else "real images (none here)"
        )
    )
    trained = {name: f"{models.steps.get(name, 0):,}" for name in ("bad", "cg", "cg-linear")}
    right = {name: f"{share:.1%}" for name, share in models.accuracy.items()}
    rows = [
        ["CFG", "constant scale; 1 is the conditional model alone"],
        [
            "linear CFG",
            "from the scale at sigma 80 to 1 at the last step, linear in sigma (REG's EDM code)",
        ],
        ["cosine CFG", "(scale - 1)(1 - cos(pi p))/2 with p = 1 - sigma/80 (REG's EDM code)"],
        ["interval CFG", f"only for sigma in [{INTERVAL[0]}, {INTERVAL[1]}] (REG's EDM2 command)"],
    ]
    if real:
        rows += [
            [
                "autoguidance",
                f"away from a model of 6 % of the parameters after {trained['bad']} steps "
                "(the packaged one had 18,750)",
            ],
            [
                "CG, network",
                "classifier guidance of the unconditional model (null label), Eq. 9 of the "
                "classifier-centric study, by a small noise-aware network that is not the judge, "
                f"{trained['cg']} steps; it reads {right['cg']} of clean test images right",
            ],
            [
                "CG, linear",
                "the same by one linear layer on (image, noise level), as in that study; "
                f"{right['cg-linear']}",
            ],
        ]
    report.table(["method", "what it is"], rows)


def without_data(report: Report, measured: Sequence[Measured]) -> None:
    """The page of a quick run without MNIST."""
    report.section(
        "No real images",
        "This run was given no MNIST (`--data mnist.npz`). It leaves out what needs real images: "
        "FID, precision and recall, the fronts, postprocessing, and the methods whose networks are "
        "trained on them (autoguidance, classifier guidance).",
    )
    keys = ("agreement", "confidence", "nfe")
    rows = [
        [title(m.point), m.point.estimator, m.point.plan, *(m.row[k] for k in keys)]
        for m in measured
    ]
    report.table(["point", "estimator", "plan", "agreement", "confidence", "evaluations"], rows)


def fronts(report: Report, measured: Sequence[Measured], real: float) -> None:
    """The main figure and its two tables."""
    report.section("FID at equal confidence")
    report.figure(
        "fronts",
        draw_fronts(measured, real),
        "Lower is better, further right is surer; numbers are scales (the weight w for CG). "
        "Compare the filled line (REG) with the open one at the same place on the axis below, "
        "not at the same number. Grey: CFG. Dotted: how sure the judge is of real test images.",
    )
    rows = []
    for method in METHODS:
        pair = [front_of(measured, method, rectified) for rectified in (False, True)]
        if pair[0] is None or pair[1] is None:
            continue
        apart = difference(pair[1].lowest(), pair[0].lowest())
        rows.append(
            [METHODS[method], *(_best(front.best()) for front in pair if front), apart.text]
        )
    report.table(
        ["method", "without REG: lowest FID", "with REG: lowest FID", "difference"],
        rows,
        "The lowest FID over scales, and the confidence there.",
    )
    guided = [m for m in METHODS if m not in CLASSIFIER_METHODS]
    for methods in (guided, CLASSIFIER_METHODS):
        columns = [f"{level:g}" for level in levels(methods[0])]
        report.table(["FID at a confidence of", *columns], matched_rows(measured, methods))
    report.text(
        "Lowest FID on each front at that confidence or more, ln(FID) a straight line between "
        "scales; in brackets REG minus not, with its 95 % error bar. A dash: not reached.",
    )


def _best(measured: Measured) -> str:
    row = measured.row
    return (
        f"{row['fid']:.3f} ± {row['fid_error']:.3f} "
        f"({'w' if measured.point.method in CLASSIFIER_METHODS else 'scale'} {row['scale']:g}, "
        f"confidence {row['confidence']:.2f})"
    )


def every_point(report: Report, measured: Sequence[Measured]) -> None:
    """The scales figure and the table of all points."""
    report.section("Over the scale")
    report.figure(
        "scales",
        draw_scales(measured),
        "FID, precision and recall at equal scale. Open: without REG; filled: with REG. Guidance "
        "buys precision with recall; REG at the same scale buys less of both.",
    )
    columns = ["method", "scale or w", "estimator", "plan", "FID", "agreement", "confidence"]
    rows = []
    for each in measured:
        row = each.row
        low, high = row["agreement_interval"]
        rows.append(
            [
                METHODS[each.point.method],
                f"{row['scale']:g}",
                row["estimator"],
                _plan(row),
                f"{row['fid']:.3f} ± {row['fid_error']:.3f}",
                f"{row['agreement']:.1%} ({100 * low:.1f}-{100 * high:.1f})",
                f"{row['confidence']:.2f} ± {row['confidence_error']:.2f}",
                row["precision"],
                row["recall"],
                f"{row['nfe']:.3g}" + (f" + {row['backward']:.3g}" if row["backward"] else ""),
            ]
        )
    report.table([*columns, "precision", "recall", "evaluations + backward passes"], rows)


def estimators(report: Report, measured: Sequence[Measured]) -> None:
    """Every estimator and the calibrated plan at one scale of CFG."""
    most = [m for m in measured if m.point.method == "vanilla" and not m.point.plain]
    if not most:
        return
    scale = max((m.point.scale for m in most), key=[m.point.scale for m in most].count)
    own = [m for m in measured if m.point.method == "vanilla" and m.point.scale == scale]
    own.sort(key=lambda m: m.point.solver is not None)
    report.section(
        f"Every estimator, scale {scale:g}",
        f"The calibrated plan is `Plan.calibrate`'s with tolerance {TOLERANCE}, found on 16 "
        "samples with seeds of their own.",
    )
    report.figure(
        "estimators",
        draw_estimators(own),
        "FID of every estimator of REG beside CFG's at the same scale; to the right what each "
        "costs. `paper` is the released code's row sum of the Jacobian.",
    )
    plain, rows = front_of(measured, "vanilla", False), []
    for each in own:
        row, there = each.row, None if plain is None else plain.fid_at(each.row["confidence"])
        rows.append(
            [
                row["estimator"],
                _plan(row),
                f"{row['fid']:.3f} ± {row['fid_error']:.3f}",
                f"{row['confidence']:.2f}",
                "–" if there is None or not each.point.rectified else f"{float(there[0]):.3f}",
                "–"
                if there is None or not each.point.rectified
                else difference(each.fids, there).text,
            ]
        )
    columns = ["estimator", "plan", "FID", "confidence", "CFG's FID at that confidence"]
    report.table(
        [*columns, "difference"],
        rows,
        "An estimator that damps more has a lower FID at equal scale, and less confidence: the "
        "last two columns compare it with CFG at a smaller scale.",
    )


def _plan(row: Mapping[str, Any]) -> str:
    """The plan, and the solver where it is another one."""
    return str(row["plan"]) + (f", {row['solver'][0]} {row['solver'][1]}" if row["solver"] else "")
