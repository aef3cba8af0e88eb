"""What is learned from: states along trajectories, and the teacher's guided estimates there."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..engine import Engine
from ..errors import InputError
from ..networks.conditioning import Cond, concat, take
from ..networks.denoisers import Denoiser
from ..networks.frozen import frozen
from ..storage.files import replacing
from ..storage.readers import open_archive, open_regular, refusing
from ..training.order import mixed
from .settings import Distillation
from .teacher import Teacher

__all__ = ["Conditions", "Pairs", "Round", "made"]

SEEDS = 1 << 41  # the first trajectory's: far from those that people sample with, and compare
Conditions = Callable[[int, torch.Generator], Any]  # (count, generator) -> cond of count rows
Student = Callable[[float], Denoiser]  # of a scale


@dataclass
class Pairs:
    """Pairs of one scale, n of them.

    Attributes:
        scale: of guidance.
        cond: conditioning, n rows.
        x: states, (n, *sample_shape). t: their times, (n,) float64.
        guided: the teacher's estimates of x_0, as x.
        moved: root mean square of what guidance changes at each pair's time, (n,); None if nobody
            asked.
    """

    scale: float
    cond: Cond
    x: Tensor
    t: Tensor
    guided: Tensor
    moved: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def some(self, rows: Any) -> Pairs:
        """Those of some rows."""
        cond, moved = take(self.cond, rows), None if self.moved is None else self.moved[rows]
        return Pairs(self.scale, cond, self.x[rows], self.t[rows], self.guided[rows], moved)


class Round:
    """The parts of one round: pairs of one scale each.

    Args:
        number: of the round. parts: as many pairs each.
    """

    def __init__(self, number: int, parts: list[Pairs]) -> None:
        self.number, self.parts = number, parts

    def save(self, path: Path) -> None:
        """Keep it for a run that is stopped within the round."""
        with replacing(path) as file:
            torch.save({"number": self.number, "parts": [vars(one) for one in self.parts]}, file)

    @classmethod
    def load(cls, path: Path) -> Round | None:
        """What `save` kept; None: there is none.

        Raises:
            InputError: it is damaged.
        """
        if not path.exists():
            return None
        remedy = "Delete the folder to begin anew"
        with refusing("out", f"{path} is damaged", remedy), open_regular(path) as file:
            with open_archive(file):
                file.seek(0)
                state = torch.load(file, map_location="cpu", weights_only=True)
            return cls(int(state["number"]), [Pairs(**one) for one in state["parts"]])


def made(
    number: int, teacher: Teacher, conditions: Conditions, settings: Distillation, student: Student
) -> Round:
    """The pairs of a round, a function of its number and of the student's weights."""
    generator = torch.Generator().manual_seed(mixed(settings.seed, 2, number))
    begun = number * settings.round_steps >= settings.student_from * settings.steps
    parts: list[Pairs] = []
    for path in range(settings.paths):
        scale = _between(*settings.scales, generator)
        fewest, most = settings.solver_steps
        steps = int(torch.randint(fewest, most + 1, (), generator=generator))
        solver = settings.solvers[(number * settings.paths + path) % len(settings.solvers)]
        cond = conditions(settings.samples, generator)
        first = SEEDS + (number * settings.paths + path) * settings.samples
        seeds = [first + k for k in range(settings.samples)]
        leads = student if begun and path % 2 else None
        relative = settings.weighting == "relative"
        found = _path(teacher, scale, solver, steps, cond, seeds, leads, relative)
        order = torch.randperm(len(found), generator=generator)
        whole = len(found) // settings.pairs
        if not whole:
            problem = f"is {settings.pairs}, and a group has {len(found)} pairs"
            raise InputError("pairs", problem, "Give fewer, or more samples")
        parts += [found.some(part) for part in order[: whole * settings.pairs].chunk(whole)]
    return Round(number, parts)


def _path(
    teacher: Teacher,
    scale: float,
    solver: str,
    steps: int,
    cond: Any,
    seeds: list[int],
    student: Student | None,
    relative: bool,
) -> Pairs:
    """All states of trajectories, which the teacher leads, or the student."""
    engine = teacher.engine(scale, solver, steps)
    told = engine.conditions(cond, len(seeds), seeds)[0]
    if student is None:
        rows = [(step.x, step.t, step.guided) for step in engine.steps(cond, seeds)]
    else:
        leading = Engine(student(scale), scale=1.0, solver=solver, steps=steps, progress=False)
        visited = dict.fromkeys(row.t for row in engine.table.rows)  # a corrector asks again
        guide = teacher.guide(scale, cond, seeds, list(visited))
        made = leading.steps(cond, seeds)
        rows = [(step.x, step.t, guide(step.x, step.t)) for step in made]
    states, times, guided = zip(*rows, strict=True)
    t = torch.tensor(times, dtype=torch.float64).repeat_interleave(len(seeds))
    x, estimates = torch.cat(states).cpu(), torch.cat(guided).cpu()
    moved = None
    if relative:
        plain = teacher.denoiser.on(engine.denoiser.schedule)
        moved = torch.stack([_moved(plain, *row, told) for row in rows])
        moved = moved.repeat_interleave(len(seeds)).cpu()
    return Pairs(scale, concat([told] * len(rows)), x, t, estimates, moved)


@torch.no_grad()
def _moved(plain: Denoiser, x: Tensor, t: float, guided: Tensor, cond: Cond) -> Tensor:
    with frozen(plain.modules):
        return (guided - plain(x, t, cond)).square().mean().sqrt()


def _between(least: float, most: float, generator: torch.Generator) -> float:
    u = float(torch.rand((), generator=generator, dtype=torch.float64))
    return math.exp(math.log(least) + u * (math.log(most) - math.log(least)))
