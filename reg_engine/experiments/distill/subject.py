"""What the experiment `distill` samples of an image model: its student, what that learned from, and
the methods beside them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from ...calibration.damping import Damping
from ...engine import Engine
from ...errors import InputError
from ...guidance.weights import Interval
from ...models import load_model, packaged_adapter, packaged_damping
from ...networks.adapter import Adapter
from ...networks.denoisers import Denoiser
from ...values import shown
from ..draws import INTERVAL
from ..report import Report

__all__ = ["METHODS", "Point", "Size", "Subject", "subject_of", "titles"]

MAIN = ("dpmpp_2m", 16)  # what training's trajectories were made by, in the middle of their steps
METHODS = {
    "unguided": "no guidance",
    "cfg": "CFG",
    "interval": "interval CFG",
    "alternate": "`alternate`",
    "lazy": "`lazy`",
    "vjp": "`vjp`",
    "damping": "damping, skip 0.15",
    "student": "student",
}
SKIP = 0.15  # of F, below which the damping leaves the reference out


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    count: int = 1000  # samples a point
    scales: tuple[float, ...] = (1.5, 2.0, 3.0, 4.0)
    further: tuple[float, ...] = (6.0,)  # of a damping and its student: it needs larger ones
    lesser: tuple[float, ...] = (1.1, 1.25)  # of CFG, whose front begins early
    settings: tuple[tuple[str, int], ...] = (MAIN, ("dpmpp_2m", 8), ("dpmpp_2m", 32), ("heun", 9))
    batch_size: int = 50
    real: int = 10_000  # test images, at most
    rounds: int = 9  # of times


@dataclass(frozen=True)
class Point:
    """A method at a scale, under a solver with so many steps."""

    method: str
    scale: float
    solver: str
    steps: int

    @property
    def row(self) -> dict[str, Any]:
        """How it is named in the numbers."""
        return dict(vars(self))

    @property
    def name(self) -> str:
        """A file name."""
        return f"{self.method}-{self.scale!r}-{self.solver}-{self.steps}"


@dataclass(frozen=True)
class Subject:
    """A model, its student, and what that learned from.

    Raises:
        InputError: an adapter of another teacher than those of METHODS.
    """

    model: Denoiser
    adapter: Adapter
    damping: Damping
    name: str  # of the model

    @cached_property
    def teacher(self) -> str:
        """Among METHODS."""
        said = self.adapter.about.get("teacher")
        known = {"vjp": "vjp", f"damping={self.name},skip={SKIP:g}": "damping"}
        if said not in known:
            problem = f"has another teacher than {' or '.join(known)}: {shown(said)}"
            raise InputError("--set adapter", problem, "Give one that `distill` made of these")
        return known[str(said)]

    @cached_property
    def student(self) -> Denoiser:
        """The model with its adapter."""
        return self.model.with_adapter(self.adapter)

    def points(self, size: Size) -> list[Point]:
        """All that are sampled: the teacher and the student at every setting, the others at the
        first alone."""
        found = []
        for solver, steps in size.settings:
            first = (solver, steps) == size.settings[0]
            found.append(Point("unguided", 1.0, solver, steps))
            for method in (m for m in METHODS if m != "unguided"):
                if first or method in (self.teacher, "student"):
                    scales = self._scales(method, size)
                    found += [Point(method, scale, solver, steps) for scale in scales]
        return found

    def _scales(self, method: str, size: Size) -> tuple[float, ...]:
        if method == "cfg":
            return (*size.lesser, *size.scales)
        damps = method == "damping" or (method == "student" and self.teacher == "damping")
        return (*size.scales, *(size.further if damps else ()))

    def engine(self, point: Point, batch_size: int) -> Engine:
        """It samples a point, plain and eager."""
        model = self.model
        own: dict[str, Any] = {"scale": point.scale, "rectify": None}
        if point.method == "student":
            model, own = self.student, {"scale": point.scale}
        elif point.method == "interval":
            own["scale"] = Interval(point.scale, *INTERVAL)
        elif point.method == "damping":
            own["scale"] = self.damping(point.scale, skip_below=SKIP)
        elif point.method not in ("cfg", "unguided"):
            own["rectify"] = point.method
        given: dict[str, Any] = {"solver": point.solver, "steps": point.steps, "progress": False}
        return Engine(model, batch_size=batch_size, **own, **given)


def titles(teacher: str) -> dict[str, str]:
    """METHODS, of which one is the teacher."""
    return METHODS | {teacher: f"{METHODS[teacher]}, the teacher"}


def subject_of(report: Report) -> Subject:
    """The packaged model of the report's data set, its adapter or the one that is set, its damping.

    Raises:
        InputError: an adapter of another model, or of another teacher.
    """
    name = report.data_set
    model = load_model(name)
    model.net.to(report.device).to(memory_format=torch.channels_last)  # type: ignore[attr-defined]
    adapter = Adapter.load(report.options.get("adapter") or packaged_adapter(name))
    subject = Subject(model, adapter, Damping.load(packaged_damping(name)), name)
    assert subject.teacher and subject.student  # or they say what does not fit, before any work
    return subject
