"""Guidance distilled into an adapter: what a student that takes one evaluation a step gives, beside
its teacher, CFG, an interval and the cheap estimators.

On a 2-D mixture a small network learns golden guidance, or its own, rectified or damped; then the
packaged image models with their packaged adapters (of Fashion-MNIST these alone). Options:
`part=mixture` or `part=images` runs one of them; `adapter=FILE` takes another than the packaged.
"""

from __future__ import annotations

from dataclasses import replace

from ...distillation import Distillation
from ...errors import choice
from ..report import Report
from . import images, mixture
from .claims import image_claims, mixture_claims
from .page import write
from .students import LEARNED
from .subject import Size

OPTIONS = ("adapter", "part")
PARTS = ("mixture", "images")
LEARNING = Distillation(
    scales=LEARNED,
    steps=8000,
    round_steps=200,
    paths=16,
    samples=256,
    pairs=256,
    parts=4,
    solvers=("heun",),
    solver_steps=(5, 20),
    lr=4e-3,
)
SHORT = replace(LEARNING, steps=40, round_steps=20, paths=4, samples=64, pairs=64, parts=2)
QUICK = (
    mixture.Size(SHORT, 128, 400, 128, 256, 2, (2.0,), (5,), ("student_golden",)),
    Size(20, (2.0, 4.0), (), (), (("dpmpp_2m", 4),), batch_size=20, real=300, rounds=2),
)
FULL = (mixture.Size(LEARNING), Size())


def run(report: Report) -> None:
    """The page, its figures and claims.

    Raises:
        InputError: an unknown part, or the mixture asked for with Fashion-MNIST.
    """
    plane, pictures = QUICK if report.quick else FULL
    known = PARTS if report.data_set == "mnist" else PARTS[1:]
    asked = report.options.get("part")
    parts = known if asked is None else (choice("part", asked, known),)
    if "mixture" in parts:
        report.numbers["mixture"] = mixture.measured(report, plane)
        mixture_claims(report)
    if "images" in parts:
        report.numbers["images"] = images.measured(report, pictures)
        image_claims(report)
    write(report)
