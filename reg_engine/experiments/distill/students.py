"""A small network of the 2-D mixture, and the students that it becomes: one for each teacher."""

from __future__ import annotations

from typing import Any

import torch

from ...calibration import calibrate_damping
from ...distillation import Distillation, Teacher, differences, distill
from ...guidance import Guidance
from ...networks.denoisers import Denoiser
from ...oracles import GaussianMixture, TiltedGrid, grid_denoiser
from ...rectifiers import RECTIFIERS
from ..report import Report
from ..theory.scores import SCHEDULE
from ..toys import ToyTask, toy_denoiser, train_toy

__all__ = ["LEARNED", "STUDENTS", "shortfall", "student_of", "teacher_of", "trained"]

# What a student is called -> its teacher.
STUDENTS = {
    "student_golden": "golden",
    "student_vjp": "vjp",
    "student_rayleigh": "rayleigh",
}
LEARNED = (1.0, 5.0)  # scales
COMPARED = 1 << 40  # the first seed of a comparison, of no training
DRAWN = 1 << 16  # points a class that the network is trained on
CALIBRATED = 64  # samples


def trained(mixture: GaussianMixture, width: int, steps: int, report: Report) -> Denoiser:
    """A network that knows both classes and, by label dropout, the mixture without labels."""
    generator = report.generator(1)
    points = torch.cat([mixture.sample(DRAWN, y, generator) for y in (0, 1)])
    labels = torch.arange(2).repeat_interleave(DRAWN)
    net: dict[str, Any] = {"width": width, "embedding": 32, "num_classes": 2}
    task = ToyTask(points, labels, SCHEDULE, "edm", label_dropout=0.1, name="network", **net)
    return toy_denoiser(train_toy(task, report, steps=steps, lr=2e-3), task)


def teacher_of(name: str, model: Denoiser, mixture: GaussianMixture) -> Teacher:
    """Golden guidance of the exact mixture; or the network's own, rectified or damped."""
    if name == "golden":
        grids = {label: TiltedGrid(mixture, label) for label in (0, 1)}

        def law(scale: float) -> Denoiser:
            return grid_denoiser(grids, scale - 1, SCHEDULE)

        return Teacher(model, law, name)
    if name in RECTIFIERS:
        return Teacher(model, name)
    seeds = range(COMPARED, COMPARED + CALIBRATED)
    labels = torch.arange(CALIBRATED) % 2
    damping = calibrate_damping(model, labels, method=name, seeds=seeds, progress=False)
    return Teacher(model, lambda scale: Guidance(damping(scale), rectify=None), name)


def student_of(name: str, teacher: Teacher, settings: Distillation, report: Report) -> Denoiser:
    """The teacher's network with what it learned of it; a run that was stopped goes on."""
    found = distill(
        teacher.denoiser,
        out=report.work / name,
        guidance=teacher,
        settings=settings,
        show=False,
    )
    if found.path is None:
        raise KeyboardInterrupt  # its state is saved
    report.say(f"{name}: {found.numbers} numbers, {found.share:.1%} of the network's")
    return teacher.denoiser.with_adapter(found.path)


def shortfall(
    student: Denoiser, teacher: Teacher, scales: tuple[float, ...], count: int
) -> list[dict[str, Any]]:
    """How far it is from its teacher by scale and noise level; see `differences`."""
    labels, seeds = torch.arange(count) % 2, range(COMPARED, COMPARED + count)
    found = differences(student, teacher, labels, seeds, scales, solver="heun", steps=9)
    return [each._asdict() for each in found]
