"""The numbers of one distillation."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import InputError, choice
from ..solvers import SOLVERS
from ..training.config import TrainConfig
from ..values import as_float, as_int, as_tuple, shown, store

__all__ = ["WEIGHTINGS", "Distillation"]

WEIGHTINGS = ("karras", "relative")


@dataclass(frozen=True)
class Distillation:
    """Settings that fix an adapter: the same ones, model, teacher and conditions give the same.

    Args:
        scales: (least, most) of the guidance scales, 1 <= least < most; drawn with an even ln s.
        share: of the model's numbers that the adapter may take, in (0, 1].
        steps: optimizer steps, >= 1.
        round_steps: steps on the pairs of one round, >= 1; then new ones are made.
        paths: groups of trajectories a round, each of one scale, solver and number of steps.
        samples: trajectories a group.
        pairs: of state and target in one part of a step, all of one scale; they are drawn from a
            group.
        parts: parts a step, >= 1.
        solvers: names of those that trajectories are made by.
        solver_steps: (least, most) solver steps of a trajectory.
        student_from: share of the steps after which every second group follows the student's own
            trajectories, in [0, 1]; the teacher is asked along them.
        weighting: of squared errors, by noise level n = sigma/alpha. "karras": (n^2 + sigma_data^2)
            / (n sigma_data)^2 (Karras et al. 2022, Table 1). "relative": 1 / (d^2 + (sigma_data /
            100)^2), d = what guidance changes at the level (root mean square) for each unit of
            scale - 1; takes one more evaluation a pair.
        lr: peak learning rate.
        seed: of everything that is drawn.
        dtype: "float32" or "bfloat16" (autocast in training).

    Raises:
        InputError: a number out of its range; an unknown solver.
    """

    scales: tuple[float, float] = (1.0, 6.0)
    share: float = 0.05
    steps: int = 3000
    round_steps: int = 100
    paths: int = 8
    samples: int = 32
    pairs: int = 32
    parts: int = 3
    solvers: tuple[str, ...] = ("dpmpp_2m",)
    solver_steps: tuple[int, int] = (6, 20)
    student_from: float = 0.5
    weighting: str = "karras"
    lr: float = 3e-3
    seed: int = 0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        remedy = "Give two scales, (least, most), 1 <= least < most"
        given = as_tuple("scales", self.scales, remedy)
        scales = tuple(as_float("scales", s, remedy, lambda v: 1 <= v < math.inf) for s in given)
        if len(scales) != 2 or scales[0] >= scales[1]:
            raise InputError("scales", f"are {shown(given)}", remedy)
        store(self, scales=scales)
        for name in ("steps", "round_steps", "paths", "samples", "pairs", "parts"):
            store(self, **{name: as_int(name, getattr(self, name))})
        store(self, seed=as_int("seed", self.seed, 0))
        fewest, steps = (as_int("solver_steps", each) for each in self.solver_steps)
        if fewest > steps:
            raise InputError("solver_steps", f"are {fewest} to {steps}", "Give the fewer first")
        store(self, solver_steps=(fewest, steps))
        names = as_tuple("solvers", self.solvers, "Give names, such as ('dpmpp_2m',)")
        if not names:
            raise InputError("solvers", "are none", "Give at least one, such as 'dpmpp_2m'")
        store(self, solvers=tuple(choice("solvers", name, SOLVERS) for name in names))
        remedy = "Give a share in (0, 1]"
        store(self, share=as_float("share", self.share, remedy, lambda v: 0 < v <= 1))
        remedy = "Give a share in [0, 1]"
        fits = as_float("student_from", self.student_from, remedy, lambda v: 0 <= v <= 1)
        store(self, student_from=fits)
        store(self, weighting=choice("weighting", self.weighting, WEIGHTINGS))
        self.config()

    def config(self) -> TrainConfig:
        """The trainer's part of them."""
        return TrainConfig(
            self.steps,
            batch_size=self.parts,
            lr=self.lr,
            warmup=min(30, self.steps // 10),
            weight_decay=0.0,
            ema_half_life=self.parts * self.steps / 20,
            seed=self.seed,
            dtype=self.dtype,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)
