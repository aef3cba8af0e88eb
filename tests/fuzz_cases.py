"""Calls of `sample` drawn at random: every choice that it takes, at tiny size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from reg_engine import Denoiser, Guidance, Plan, RegEngineError, schedules
from reg_engine.guidance.adjustments import TAG, Clip, GuidedChannels, Rescale, ZeroInit
from reg_engine.guidance.directions import APG, TCFG, APGMix, CFGZeroStar, Delta
from reg_engine.guidance.frequency import FDG
from reg_engine.guidance.independent import ICG
from reg_engine.guidance.perturbed import SLG
from reg_engine.guidance.references import BadModel, Classifier, Unconditional
from reg_engine.guidance.sample_weights import BetaCurve, Mambo, PowerLaw
from reg_engine.guidance.weights import CONVENTIONS, CFGPlusPlus, Constant, Cosine, Interval, Linear
from reg_engine.networks.preconditioning import PREDICTIONS
from reg_engine.plan import MODES
from reg_engine.rectifiers import (
    FD,
    JVP,
    RECTIFIERS,
    VJP,
    Diagonal,
    DiagonalBatched,
    FDBatched,
)
from reg_engine.solvers import SOLVERS

CLASSES = 3
SHAPES = ((1, 4, 4), (3, 2, 2), (2, 3), (7,), (1,), (1, 1, 1))
VP_OPTIONS = {
    "spacing": ("trailing", "leading", "linspace", "karras", "exponential", "beta"),
    "prior": ("unit", "sigma", "standard"),
    "final": ("zero", "first"),
    "rounded": (True, False),
    "terminal": (None, 0.1),
}


class Net(nn.Module):
    """Smooth, bounded, label-dependent, of any shape; blocks in a ModuleList."""

    def __init__(self, shape: tuple[int, ...], seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            size = torch.Size(shape).numel()
            self.enter, self.leave = nn.Linear(size, 8), nn.Linear(8, size)
            self.label = nn.Embedding(CLASSES + 1, 8)
            self.blocks = nn.ModuleList([nn.Linear(8, 8)])

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        h = self.enter(x.flatten(1)) + self.label(cond) + t[:, None].cos().to(x.dtype)
        for block in self.blocks:
            h = h + torch.tanh(block(h))
        return self.leave(torch.tanh(h)).reshape_as(x)


@dataclass
class Call:
    """One call: `model()` and `guidance()` are made anew for every run of it."""

    model: Callable[[], Denoiser]
    guidance: Callable[[], Guidance]
    cond: list[int]
    schedule: Callable[[], schedules.Schedule | None]
    choices: dict[str, Any]
    seeds: range
    noise: Tensor | None
    sharp: bool  # whether the estimator's rounding stays that of the network

    def __repr__(self) -> str:
        try:
            made = f"{self.model()!r}, {self.guidance()!r}, {self.schedule()!r}"
        except RegEngineError as error:
            made = f"{error}"
        return f"Call({made}, {self.cond}, {self.choices}, noise={self.noise is not None})"


def some(draw: Any, options: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
    """A few of the options, each with one of its values."""
    names = draw(st.lists(st.sampled_from(sorted(options)), unique=True, max_size=2))
    return {name: draw(st.sampled_from(options[name])) for name in names}


@st.composite
def schedule_of(draw: Any) -> Callable[[], schedules.Schedule]:
    """What makes a schedule: some refuse their own options."""
    kind = draw(st.sampled_from(["edm", "flow", "vp", "scaled", "cosine", "vpsde", "vesde"]))
    if kind == "edm":
        low, high = draw(st.sampled_from([(0.002, 80.0), (0.05, 3.0), (1e-6, 1e3)]))
        return partial(schedules.EDM, low, high)
    if kind == "flow":
        return partial(
            schedules.Flow,
            draw(st.sampled_from([1.0, 0.3, 7.0])),
            grid_end=draw(st.sampled_from([0.0, 0.01])),
        )
    if kind == "vpsde":
        return partial(schedules.VPSDE, prior=draw(st.sampled_from(["unit", "sigma"])))
    if kind == "vesde":
        return schedules.VESDE
    kinds = {"vp": schedules.VPLinear, "scaled": schedules.ScaledLinear, "cosine": schedules.Cosine}
    return partial(kinds[kind], **some(draw, VP_OPTIONS))


@st.composite
def solver_of(draw: Any) -> dict[str, Any]:
    name = draw(st.sampled_from(sorted(SOLVERS)))
    values: dict[str, tuple[Any, ...]] = {}
    for option, spec in SOLVERS[name].options.items():
        if spec.known:
            values[option] = spec.known
        elif isinstance(spec.default, bool):
            values[option] = (True, False)
        else:
            values[option] = (0.0, 0.3, 1.0, 20.0)
    options = some(draw, values) if values else {}
    return {"solver": name, "solver_options": options, "steps": draw(st.integers(1, 5))}


@st.composite
def weight_of(draw: Any) -> Any:
    scale = draw(st.sampled_from([0.0, 0.5, 1.0, 1.5, 3.0, 6.0]))
    kinds = ["number", "constant", "interval", "linear", "cosine", "cfg++", "sample"]
    kind = draw(st.sampled_from(kinds))
    convention = draw(st.sampled_from(CONVENTIONS))
    if kind == "interval":
        return Interval(scale, *draw(st.sampled_from([(0.0, 1.0), (0.2, 5.0), (1.0, 1e4)])))
    if kind == "linear":
        return Linear(scale, draw(st.sampled_from([0.0, 1.0, 4.0])), convention)
    if kind == "cosine":
        return Cosine(scale, draw(st.sampled_from([0.5, 1.0, 3.0])), convention)
    if kind == "cfg++":
        return CFGPlusPlus(draw(st.sampled_from([0.0, 0.6, 1.0])))
    if kind == "sample":
        return draw(st.sampled_from(SAMPLE_WEIGHTS))
    return scale if kind == "number" else Constant(scale)


RECTIFY = [
    None, "auto", *RECTIFIERS, FD(1e-3), FDBatched(0.03), JVP("delta"), VJP(memory_budget=1),
    Diagonal(probes=2), DiagonalBatched(probes=2),
]  # fmt: skip
DIRECTIONS = [
    Delta(), APG(), APG(0.0, 0.5, 1.0), APG(0.7, 2.0, 0.2), CFGZeroStar(), TCFG(),
    APG(norm_dim=-1), APGMix(after=1), FDG((3.0, 2.0)), FDG((3.0,), 0.2),
]  # fmt: skip
# A gate, feedback and a normalised curve make decisions that rounding can turn.
SAMPLE_WEIGHTS = [Mambo(), PowerLaw(0.3, of="denoised"), BetaCurve(1.0, gamma=0.0)]
ADJUST = [
    (),
    Rescale(0.7),
    ZeroInit(1),
    Clip(1.0),
    TAG(1.3),
    GuidedChannels(1),
    (Rescale(1.0), ZeroInit(2)),
    (ZeroInit(0), Rescale(0.0)),
]


@st.composite
def plan_of(draw: Any) -> Plan | None:
    edges = draw(st.lists(st.sampled_from([0.01, 0.3, 1.0, 4.0, 50.0]), unique=True, max_size=3))
    modes = [draw(st.sampled_from(MODES)) for _ in range(len(edges) + 1)]
    return draw(st.sampled_from([None, Plan(tuple(sorted(edges)), tuple(modes))]))


@st.composite
def calls(draw: Any) -> Call:
    """One call of every choice; some make no sense together."""
    shape, dtype = (
        draw(st.sampled_from(SHAPES)),
        draw(st.sampled_from([None, *[torch.float64] * 5, torch.float32, torch.float16])),
    )
    net_dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.float64, torch.bfloat16]))
    prediction, schedule = draw(st.sampled_from(PREDICTIONS)), draw(schedule_of())
    bad_prediction, bad_schedule = draw(st.sampled_from(PREDICTIONS)), draw(schedule_of())

    def model(seed: int = 5, kind: str = prediction, of: Any = schedule) -> Denoiser:
        net = Net(shape, seed).to(net_dtype)
        return Denoiser(net, kind, of(), shape, CLASSES, num_classes=CLASSES)

    def classifier() -> Classifier:
        net = Net(shape, 9).to(torch.float64)
        labels = torch.zeros(1, dtype=torch.long)
        return Classifier(
            lambda x, t: net(x.double(), t, labels.expand(len(x))).flatten(1).repeat(1, CLASSES)
        )

    references: dict[str, Callable[[], Any]] = {
        "unconditional": Unconditional,
        "bad": lambda: BadModel(model(6, bad_prediction, bad_schedule)),
        "classifier": classifier,
        "icg": ICG,
        "slg": lambda: SLG(0),
    }
    names = [*["unconditional"] * 3, "bad", "classifier", "icg", "slg"]
    reference = references[draw(st.sampled_from(names))]
    rectify = draw(st.sampled_from(RECTIFY))
    values = {
        "weight": draw(weight_of()),
        "rectify": rectify,
        "direction": draw(st.sampled_from(DIRECTIONS)),
        "adjust": draw(st.sampled_from(ADJUST)),
    }
    cond = draw(st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=4))
    choices = draw(solver_of())
    choices |= {"plan": draw(plan_of()), "dtype": dtype}
    first = draw(st.sampled_from([0, 10**6, 2**63 - 5]))
    seeds = range(first, first + len(cond))
    other = draw(st.sampled_from([lambda: None, None])) or draw(schedule_of())
    noise = None
    if draw(st.sampled_from([True, False, False])):
        generator = torch.Generator().manual_seed(first % 100)
        noise = torch.randn(len(cond), *shape, generator=generator)
    name = rectify if isinstance(rectify, str) or rectify is None else rectify.name
    sharp = name not in ("fd", "fd_batched", "diagonal_batched", "jvp", "blend")
    return Call(
        model, lambda: Guidance(reference=reference(), **values), cond, other, choices, seeds,
        noise, sharp,
    )  # fmt: skip
