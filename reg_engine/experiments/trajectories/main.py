"""Experiment `trajectories`: how guidance bends denoising trajectories, and who is to blame.

After "Studying Classifier(-Free) Guidance From a Classifier-Centric Perspective" (Zhao and Schwing,
arXiv 2503.10638), Sec. 3.1 and Figs. 1-3, with the references that it lacks: an exact denoiser, an
exact classifier at every noise level, and the distribution that guidance is meant to produce.
"""

from __future__ import annotations

from dataclasses import asdict

from ..classifier_guidance import ExactClassifier
from ..report import Report
from . import figures
from .measures import SOURCES, Study, budget, choice_of_k, eq6, misled
from .nets import (
    FULL,
    MEAN,
    QUICK,
    SCHEDULE,
    classifier_errors,
    denoiser_error,
    mixture,
    trained_parts,
)
from .page import PANELS, claims, write
from .paths import Flipped


def run(report: Report) -> None:
    """Train, sample every combination, and write the page."""
    size = QUICK if report.quick else FULL
    parts = trained_parts(report, size)
    parts.classifiers["flipped"] = Flipped(parts.classifiers["exact"])
    parts.classifiers["shifted"] = ExactClassifier(mixture(shift=MEAN), SCHEDULE)
    study = Study(parts, mixture(), size.count, size.steps, report.generator(2))
    report.say("sampling trajectories")
    report.numbers.update(
        setting=asdict(size),
        rows=study.rows(size.scales),
        errors={kind: classifier_errors(parts.classifiers[kind]) for kind in SOURCES[:3]},
        denoiser_error=denoiser_error(parts.denoisers["learned"]),
        budget=budget(study, size.scales),
        eq6=eq6(study),
        k_of=choice_of_k(study, PANELS),
        misled=misled(study),
    )
    report.say("writing the page")
    figures.draw_paths(report, study)
    figures.draw_measures(report, study)
    claims(report)
    write(report)
