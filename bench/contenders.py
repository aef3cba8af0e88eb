"""Who samples in the end-to-end benchmark: three loops in plain torch, and the engine's choices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench import baselines
from bench.cases import MODEL_CASES, ModelCase
from bench.models import Loaded
from bench.students import merged, student
from reg_engine import Damped, Engine, Plan
from reg_engine.rectifiers import PRODUCTS
from reg_engine.solvers import Table, table

__all__ = [
    "BASELINE",
    "CAPTURED_CFG",
    "CONTENDERS",
    "Contender",
    "Outcome",
    "Work",
    "exact",
    "fixed_plan",
    "schedule",
]

SCALE = 3.0
TOLERANCE = 0.02  # of calibrated plans
RECTIFIED = 0.2  # share of the noise levels that a fixed plan rectifies
# K of Gaussian data of variance 1, which a calibrated damping resembles; where it is below SKIP the
# reference is not evaluated.
DAMPING = {level: 1 / (1 + level**2) for level in (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)}
SKIP = 0.15
# Forward and backward passes of a plain loop's evaluation; a dual pass counts as two.
PLAIN = {"none": (2.0, 0.0), "paper": (2.0, 1.0), "jvp": (4.0, 0.0)}
BASELINE, CAPTURED_CFG = "plain-cfg", "cfg-captured"


class Outcome(NamedTuple):
    """Samples and what they cost, a sample."""

    samples: Tensor
    nfe: float
    backward: float


class Work(NamedTuple):
    """A batch to sample: a model, its case, how many samples, how many solver steps."""

    loaded: Loaded
    case: ModelCase
    count: int
    steps: int

    @property
    def common(self) -> dict[str, Any]:
        """What every contender is told alike."""
        return {
            "scale": SCALE,
            "solver": self.case.solver,
            "solver_options": self.case.solver_options,
            "steps": self.steps,
        }


@dataclass(frozen=True)
class Contender:
    """One provider.

    Args:
        name: in results and in `pytest -k`.
        estimator: the engine's rectifier ("none": CFG); for the plain loops what they amount to.
        guide: of a plain loop; None = the engine.
        mode: of the engine: "eager", "captured", "compiled", "planned" (calibrated), "fixed" (a
            plan that is given), "damped" (by DAMPING), "student" (guidance in an adapter); all but
            "eager" and "student" are captured on CUDA.
    """

    name: str
    estimator: str
    guide: baselines.Guide | None = None
    mode: str = "eager"

    def unable(self, device: torch.device) -> str:
        """Why it cannot run on `device`; "" if it can."""
        if self.mode == "captured" and device.type != "cuda":
            return "no CUDA device"
        return ""

    def prepared(self, work: Work, device: torch.device) -> Callable[[], Callable[[], Outcome]]:
        """Calibrates a plan if one is asked for; what it returns makes a sampler of a batch."""
        plan = self._plan(work) if self.mode in ("planned", "fixed") else None
        return lambda: self._sampler(work, device, plan)

    def captures(self, device: torch.device) -> bool:
        """Whether its steps are CUDA graphs."""
        eager = self.guide is not None or self.mode in ("eager", "student")
        return device.type == "cuda" and not eager

    def _plan(self, work: Work) -> Plan:
        if self.mode == "fixed":
            common = {**work.common["solver_options"], "steps": work.steps}
            return fixed_plan(table(work.case.solver, work.loaded.denoiser.schedule, **common))
        count = min(work.count, 4)
        return Plan.calibrate(
            work.loaded.denoiser,
            work.loaded.cond(count),
            TOLERANCE,
            seeds=range(count),
            rectify=self.estimator,
            progress=False,
            **work.common,
        )

    def _sampler(
        self, work: Work, device: torch.device, plan: Plan | None
    ) -> Callable[[], Outcome]:
        cond, seeds, denoiser = (
            work.loaded.cond(work.count),
            range(work.count),
            work.loaded.denoiser,
        )
        if self.guide is not None:
            solver, options = work.case.solver, work.case.solver_options
            evaluations = len(table(solver, denoiser.schedule, work.steps, **options).rows)
            forward, backward = PLAIN[self.estimator]

            def plain() -> Outcome:
                samples = baselines.sample(denoiser, cond, seeds, guide=self.guide, **work.common)
                return Outcome(samples, forward * evaluations, backward * evaluations)

            return plain
        if self.mode == "student":
            denoiser = student(work.loaded, SCALE)
        engine = Engine(
            denoiser,
            rectify=None if self.estimator == "none" else self.estimator,
            plan=plan,
            capture=self.captures(device),
            compile=self.mode == "compiled",
            progress=False,
            **work.common | self._own(),
        )

        def sampled() -> Outcome:
            out = engine.sample(cond, seeds=seeds)
            return Outcome(out.samples, out.stats.nfe, out.stats.backward)

        return sampled

    def _own(self) -> dict[str, Any]:
        """The scale, where it is not everybody's: a student's weights hold it."""
        own: dict[str, dict[str, Any]] = {"damped": {"scale": damped()}, "student": {"scale": 1.0}}
        return own.get(self.mode, {})


def _engines(estimator: str, modes: tuple[str, ...]) -> list[Contender]:
    label = "cfg" if estimator == "none" else estimator
    return [Contender(f"{label}-{mode}", estimator, mode=mode) for mode in modes]


CONTENDERS: tuple[Contender, ...] = (
    Contender(BASELINE, "none", baselines.cfg),
    Contender("authors", "paper", baselines.authors),
    Contender("forward-ad", "jvp", baselines.forward),
    *_engines("none", ("eager", "captured", "compiled")),
    *(
        contender
        for estimator in PRODUCTS
        for contender in _engines(estimator, ("eager", "captured", "compiled", "planned"))
    ),
    *_engines("fd_batched", ("fixed",)),
    *_engines("none", ("damped",)),
    Contender("student", "none", mode="student"),
)


def damped() -> Damped:
    """SCALE damped as by a calibration on real weights, which random ones cannot have."""
    return Damped(SCALE, tuple(DAMPING), tuple(DAMPING.values()), skip_below=SKIP)


def fixed_plan(rows: Table) -> Plan:
    """RECTIFIED of the noise levels, those in the middle, with the rectifier; the others CFG.

    What a calibrated plan amounts to, where weights are random and calibrating means nothing.
    """
    levels = sorted({row.noise_level for row in rows.rows})
    count = max(1, round(RECTIFIED * len(levels)))
    first = (len(levels) - count) // 2
    chosen = levels[first : first + count]
    modes = ["reg" if row.noise_level in chosen else "cfg" for row in rows.rows]
    return Plan.of_rows(rows, modes, {})


def exact(contender: Contender, work: Work) -> Tensor:
    """The same samples computed independently: a plain loop for the engine, and the reverse.

    Where there is a lagged direction, this is so at the first evaluation alone: give one step.
    """
    cond, seeds = work.loaded.cond(work.count), range(work.count)
    if contender.mode == "student":
        own = {name: value for name, value in work.common.items() if name != "scale"}
        return merged(work.loaded, SCALE, cond, seeds, **own)
    if contender.guide is None:
        guide = baselines.exact_for(contender.estimator, seeds)
        return baselines.sample(work.loaded.denoiser, cond, seeds, guide=guide, **work.common)
    rectify = None if contender.estimator == "none" else contender.estimator
    engine = Engine(work.loaded.denoiser, rectify=rectify, progress=False, **work.common)
    return engine.sample(cond, seeds=seeds).samples


def schedule(size: str) -> list[tuple[ModelCase, Contender]]:
    """Who samples what.

    "real": everything. "shrunk": the paper's rows and MNIST; compiled code and calibrated plans for
    MNIST alone, since each takes a minute elsewhere, and a plan means little on random weights.
    "tiny": each architecture once, and nothing is compiled.
    """
    pairs = []
    seen: set[str] = set()
    for case in MODEL_CASES:
        mnist = case.family == "mnist"
        known = case.published is not None or mnist
        if (size != "real" and not known) or (size == "tiny" and case.family + case.key in seen):
            continue
        seen.add(case.family + case.key)
        modes = {"eager", "captured"}
        if size == "real" or mnist:
            more = {"planned", "compiled", "fixed", "damped", "student"}
            modes |= {"planned", "student"} if size == "tiny" else more
        pairs += [(case, contender) for contender in CONTENDERS if contender.mode in modes]
    if size == "tiny":
        pairs = [(c, who) for c, who in pairs if c.key != "edm2-xxl"]
    return pairs
