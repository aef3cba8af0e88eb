"""The sections of the trajectories experiment's page that hold figures and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..report import Report
from . import figures
from .causes import MISLEADING, MISLED_AT, find
from .measures import SOURCES, Key, Study, displacement, hundredths, short
from .nets import MEAN, Parts
from .paths import Paths

__all__ = ["PANELS", "both_sides", "causes", "classifiers", "misleading", "over_scales"]

PANELS = (1.0, 2.0, 4.0, 8.0)  # scales of the trajectory figures and of the tables
REACH = 5.0  # single trajectories of a trained network at a large scale go farther: cut
Cell = tuple[Paths, str]


def both_sides(report: Report, study: Study) -> None:
    """Scale 1: the conditional model next to CG (the paper's Fig. 1)."""
    keys = [[Key(d, s, False, 1.0) for s in ("cfg", *SOURCES[:3])] for d in study.parts.denoisers]
    made = figures.paths_figure(
        [[_cell(study.paths(key), study) for key in line] for line in keys],
        ("exact denoiser", "trained denoiser"),
        (
            "conditional model",
            "CG, exact classifier",
            "CG, MLP classifier",
            "CG, linear classifier",
        ),
    )
    report.section("Scale 1: both sides of Eq. 6 (the paper's Fig. 1)")
    report.figure(
        "scale_one",
        made,
        "Left column: the conditional model, the left-hand side of Eq. 6. The others: CG at scale "
        "1, its right-hand side. Dashed: the decision boundary; D: the displacement. With the "
        "exact classifier nothing changes; the linear classifier bends the trajectories away from "
        "the boundary while there is much noise.",
    )
    found = report.numbers["eq6"]
    report.table(
        ("distance to the conditional model (rms)", "exact", "MLP", "linear classifier"),
        [
            [f"{name} denoiser", *(short(found[f"{key}_{source}"]) for source in SOURCES[:3])]
            for name, key in (("exact", "exact"), ("trained", "learned"))
        ],
        "For the usual forward noising Bayes' rule gives Eq. 6 exactly, and so it is measured: "
        "with exact parts both sides are one sampler, to rounding. Where they differ, it is by an "
        "error of the classifier or of the denoiser, not by Eq. 6.",
    )


def over_scales(report: Report, study: Study) -> None:
    """Trajectories, displacement and samples over scales, without and with REG."""
    report.section("Over scales (the paper's Figs. 2 and 3), and with REG")
    columns = [f"scale {scale:g}" for scale in PANELS]
    names = ("CG, MLP", "CG, linear", "CFG")
    sources = ("mlp", "linear", "cfg")
    widest = (study.paths(Key("learned", s, False, PANELS[-1])) for s in sources)
    reach = min(figures.reach_of(widest), REACH)
    for name, rectified, caption in (
        (
            "trained",
            False,
            "Trained denoiser, no rectifier: the larger the scale, the farther trajectories bend "
            "from the dashed boundary, with and without an explicit classifier.",
        ),
        (
            "trained_reg",
            True,
            "The same with REG, on the same axes: with the MLP classifier and with CFG the push is "
            "nearly gone. At scale 1 there is nothing to rectify, so the linear classifier's own "
            "push stays; that larger scales undo it is an accident (see the classifiers below: its "
            "K is negative at high noise).",
        ),
    ):
        cells = [_line(study, "learned", s, rectified) for s in sources]
        made = figures.paths_figure(cells, names, columns, reach=reach)
        report.figure(name, made, caption)
    cells = [_line(study, "exact", "cfg", rectified) for rectified in (False, True)]
    cells.append([_cell(study.golden(scale), study) for scale in PANELS])
    report.figure(
        "exact",
        figures.paths_figure(
            cells, ("CFG = CG, exact", "with REG", "golden"), columns, reach=reach
        ),
        "Everything exact, so no error but that of guidance itself. Upper row: CFG, which is CG "
        "with the exact classifier, bends as the trained models do. Lower row: golden guidance, "
        "whose samples have the target's distribution, hardly bends.",
    )
    _displacement(report, study, columns)
    _samples(report, study, columns)


def _displacement(report: Report, study: Study, columns: Sequence[str]) -> None:
    rows = report.numbers["rows"]
    report.figure(
        "displacement",
        figures.displacement_figure(rows, study, 4.0),
        "Displacement from the boundary, averaged over time, against the scale (left, middle), and "
        "over time at scale 4 (right). Solid without, dashed with REG. The target asks for a small "
        "push; plain guidance pushes many times that, and most of it while there is still much "
        "noise, where REG's K is near 0.",
    )
    report.table(
        ("displacement", *columns),
        _table(rows, "displacement"),
        "Each cell: without / with REG. The last row is what the target asks for.",
    )


def _samples(report: Report, study: Study, columns: Sequence[str]) -> None:
    shown = (("exact", "exact"), ("learned", "mlp"), ("learned", "linear"), ("learned", "cfg"))
    report.figure(
        "densities",
        figures.densities_figure(study, 4.0, shown),
        "Where samples end at scale 4, class 0 mirrored onto class 1. Guided samples pass the "
        "target (black) and pile up beyond the class itself (grey); with REG they lie near the "
        "target.",
    )
    report.table(
        ("energy distance to the target", *columns),
        _table(report.numbers["rows"], "energy"),
        "Each cell: without / with REG; lower is better. Unguided is the exact conditional model "
        "against the same target: a strong baseline here, because the tilt changes these classes "
        "little, and at the largest scales REG's remaining push costs as much as it gains. Golden "
        "is the floor.",
    )


def classifiers(report: Report, parts: Parts) -> None:
    """What each classifier gets wrong."""
    errors = report.numbers["errors"]
    report.section(
        "The classifiers",
        "The exact logit is linear in x_t, with slope 2 alpha m/(alpha^2 s^2 + sigma^2): steep in "
        "clean data, flat in noise. A linear layer on concat(x_t, t) has one slope for all times; "
        "t only moves its boundary. So it is right at one noise level, too weak below and too "
        "strong above, although it draws the boundary in the right place.",
    )
    report.figure(
        "slopes",
        figures.slopes_figure(parts),
        "Left: the logit's slope at the boundary; the band is its range over |x_t| <= 0.5. Middle: "
        "the term of Eq. 9 that this slope gives; the linear classifier pushes where the exact one "
        "has nothing to say yet. Right: REG's K of the conditional model that each classifier "
        "makes of the exact unconditional one, averaged over x_t of the class. An exact K lies "
        "above 0. K holds the second derivative of log p(y|x_t), which too steep a slope makes "
        "too negative: the linear classifier's K is below 0 at high noise, so that REG pulls back "
        "there what the classifier pushes too far.",
    )
    report.table(
        ("classifier", "rms slope error at the boundary", "relative error of Eq. 9's term",
         "agreement with the exact class"),
        [
            [{"exact": "exact", "mlp": "MLP", "linear": "linear"}[kind],
             short(found["slope_rms"]), short(found["guidance"]), f"{found['agreement']:.1%}"]
            for kind, found in errors.items()
        ],
        "Averaged over all times and x_t. The class that a classifier names says nothing about how "
        "well it guides: the linear one agrees as well as any and guides worst.",
    )  # fmt: skip


def causes(report: Report, study: Study) -> None:
    """Scale, classifier error and network error told apart; which K."""
    report.section("Who bends the trajectories: scale, classifier or network")
    rows = report.numbers["budget"]
    report.figure(
        "causes",
        figures.budget_figure(rows),
        "Root mean square distance between trajectories from the same noise (CG). Guidance itself: "
        "all parts exact, against golden. The others: one exact part exchanged for a trained one "
        "at the same scale. At scale 1 guidance itself is exact (no point). Left: from scale 2 on "
        "the scale is the larger cause unless the classifier is linear. Right: REG takes out most "
        "of that cause, so the parts' own errors come to the front.",
    )
    report.table(
        ("scale", "rectifier", "guidance itself", "linear", "MLP", "network"),
        [
            [f"{r['scale']:g}", "REG" if r["rectified"] else "none",
             *(short(r[cause]) for cause in ("guidance", "linear", "mlp", "network"))]
            for r in rows
            if r["scale"] in PANELS
        ],
    )  # fmt: skip
    report.text(
        "**Which K.** CG can also be read as guidance of the unconditional model: its target is "
        "p(x) R(x) with R = p(y|x)^scale, Theorem 4.1 holds for it, and Eq. 22 then rectifies the "
        "whole term, scale * g, with the K of the unconditional model. Golden guidance is the same "
        "for both readings; REG's approximation is not:"
    )
    report.table(
        ("energy distance to the target", *(f"scale {s:g}" for s in PANELS)),
        [
            [label, *(short(row[key]) for row in report.numbers["k_of"])]
            for label, key in (
                ("CG, exact parts", "plain"),
                ("REG, K of the Bayes conditional model", "conditional"),
                ("REG, K of the unconditional model", "unconditional"),
            )
        ]
        + [
            [
                "the last one's samples on the wrong side",
                *(f"{row['unconditional_wrong']:.0%}" for row in report.numbers["k_of"]),
            ]
        ],
        "REG puts the mean of p(x|x_t) into the reward in place of x. The unconditional one has "
        "two modes, and at high noise its K is near 0: nothing steers to the class while the "
        "choice is still open, and even scale 1, where plain CG is exact, comes out wrong. So a "
        "rectifier on classifier guidance belongs on the "
        "conditional model that Bayes' rule gives. (In this engine: a Denoiser of that model with "
        "the reference Classifier.)",
    )


def misleading(report: Report, study: Study) -> None:
    """Classifiers that are wrong about the boundary or the side."""
    keys = [[Key("exact", s, r, scale) for scale, r in MISLED_AT] for s in MISLEADING]
    labels = [f"scale {scale:g}{', REG' if r else ''}" for scale, r in MISLED_AT]
    made = figures.paths_figure(
        [[_cell(study.paths(key), study) for key in line] for line in keys],
        ("flipped", "shifted"),
        labels,
        boundaries=(0.0, MEAN),
    )
    report.section(
        "A misleading classifier",
        "Exact denoiser, and two classifiers that know the noise level but not the data: *flipped* "
        f"takes each class for the other; *shifted* has its boundary at {MEAN:g}, in the middle of "
        "class 1.",
    )
    report.figure(
        "misleading",
        made,
        "Colour: the class that was asked for. Dashed: the classifier's own boundary. Flipped: "
        "samples end in the other class, whatever the scale. Shifted: at scale 1 class 0 takes "
        "in half of class 1, and class 1 keeps the other half; larger scales push both off a "
        "boundary that is not there.",
    )
    report.table(
        ("classifier", "scale", "rectifier", "wrong class", "displacement", "energy distance"),
        [
            [r["source"], f"{r['scale']:g}", "REG" if r["rectified"] else "none",
             f"{r['wrong']:.1%}", hundredths(r["displacement"]), short(r["energy"])]
            for r in report.numbers["misled"]
        ],
        "REG takes out what the scale adds and keeps what the classifier says: it is no cure for a "
        "classifier that is wrong.",
    )  # fmt: skip


def _cell(paths: Paths, study: Study) -> Cell:
    moved = float(displacement(paths, study.plain).mean())
    return paths, f"D = {hundredths(moved)}"


def _line(study: Study, denoiser: str, source: str, rectified: bool) -> list[Cell]:
    keys = (Key(denoiser, source, rectified, scale) for scale in PANELS)
    return [_cell(study.paths(key), study) for key in keys]


def _table(rows: Sequence[Mapping[str, Any]], measure: str) -> list[list[str]]:
    """A row for each denoiser and source; cells `without / with REG` over PANELS."""
    found = []
    show = short if measure == "energy" else hundredths
    for denoiser, name in (("exact", "exact"), ("learned", "trained")):
        for source in SOURCES:
            if (denoiser, source) == ("exact", "cfg"):
                continue  # equal to CG with the exact classifier
            label = figures.SOURCE_NAMES[source]
            label = "CFG = CG, exact classifier" if (denoiser, source) == ("exact",) * 2 else label
            pairs = [
                [
                    find(rows, denoiser=denoiser, source=source, rectified=r, scale=s)[measure]
                    for r in (False, True)
                ]
                for s in PANELS
            ]
            cells = [" / ".join(show(value) for value in pair) for pair in pairs]
            found.append([f"{label}; {name} denoiser", *cells])
    for source in ("unguided", "golden") if measure == "energy" else ("golden",):
        cells = [show(find(rows, source=source, scale=s)[measure]) for s in PANELS]
        found.append([source, *cells])
    return found
