"""Win ratios in the plane: how often a rectified direction is nearer to golden guidance than CFG's.

At points x_t of one step, each guidance method gives w(t) delta without REG and w(t) K^T delta
with it, in the units of grad log (times alpha / sigma^2). Golden guidance is taken *at the
weight of that step*: grad log E_t with R_0 = (p/p_ref)^w(t). (A method whose weight changes has
no R_0 of its own; this says what its step should have done at its weight.) Steps of weight 0 do
not count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...guidance.directions import Delta
from ...guidance.references import BadModel, Unconditional
from ...guidance.weights import Constant, Cosine, Interval, Linear, Weight
from ...networks.denoisers import Denoiser
from ...networks.point import Point, Reference
from ...noise import SampleNoise
from ...rectifiers import RECTIFIERS, make
from ...solvers import Row, Table
from ..golden import chain_rewards, golden_of, win_ratio
from .golden import CFG, WORSE, Reward, TiltedGrid

__all__ = [
    "ESTIMATORS",
    "FELT",
    "INTERVAL",
    "METHODS",
    "Chains",
    "Golden",
    "Method",
    "Model",
    "Oracle",
    "Points",
    "Scores",
    "rectified_terms",
    "simulation_errors",
    "win_ratios",
]

ESTIMATORS = tuple(RECTIFIERS)
FELT = 0.1  # in units of grad log: x_0 of unit variance has scores of order 1
Points = Callable[[Row], tuple[Tensor, Tensor]]  # row -> x_t (G, 2) float64, labels (G,)
INTERVAL = (0.28, 2.9)  # noise levels; the authors' interval for EDM2


@dataclass(frozen=True)
class Method:
    """A way of guiding: its weight for a mean of about w, and what it moves away from."""

    weight: Callable[[float], Weight]
    reference: str


METHODS: dict[str, Method] = {
    "vanilla": Method(lambda w: Constant(1 + w), CFG),
    "linear": Method(lambda w: Linear(1.0, 1 + 2 * w), CFG),
    "cosine": Method(lambda w: Cosine(1 + 2 * w), CFG),
    "interval": Method(lambda w: Interval(1 + w, *INTERVAL), CFG),
    "autoguidance": Method(lambda w: Constant(1 + w), WORSE),
}


@dataclass(frozen=True)
class Model:
    """A conditional model of a set and a worse one (of the blurred set)."""

    denoiser: Denoiser
    worse: Denoiser

    def reference(self, kind: str) -> Reference:
        """The reference CFG or WORSE."""
        return Unconditional() if kind == CFG else BadModel(self.worse)


class Golden:
    """Golden guidance at the points of one step: `at(row, index, x, labels)` prepares it.

    The function that it returns takes a reference's kind and a weight and gives grad log E_t,
    (G, 2), float64.
    """

    def at(self, row: Row, index: int, x: Tensor, labels: Tensor) -> Callable[[str, float], Tensor]:
        """See the class."""
        raise NotImplementedError


@dataclass(frozen=True)
class Oracle(Golden):
    """Exact golden guidance; `grids` by (kind, label)."""

    grids: Mapping[tuple[str, int], TiltedGrid]

    def at(self, row: Row, index: int, x: Tensor, labels: Tensor) -> Callable[[str, float], Tensor]:
        def golden(kind: str, w: float) -> Tensor:
            out = torch.empty_like(x)
            for label in labels.unique().tolist():
                at = labels == label
                out[at] = self.grids[kind, label].golden(x[at], row.alpha, row.sigma, w)
            return out

        return golden


@dataclass(frozen=True)
class Chains(Golden):
    """Golden guidance by `repeats` ancestral chains of the model itself, as the paper has it.

    Args:
        denoiser: whose chains. table: of the chain (ddpm). rewards: by (kind, label).
        repeats: chains a point. generator: of their noise.
        device: where the network is.
        seen: what was asked for, by (row index, kind, w): to be compared with the oracle's.
    """

    denoiser: Denoiser
    table: Table
    rewards: Mapping[tuple[str, int], Reward]
    repeats: int
    generator: torch.Generator
    device: torch.device
    seen: dict[tuple[int, str, float], Tensor] = field(default_factory=dict)

    def at(self, row: Row, index: int, x: Tensor, labels: Tensor) -> Callable[[str, float], Tensor]:
        runs: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}
        kinds = {kind for kind, _ in self.rewards}
        for kind, label in sorted((k, n) for k in kinds for n in labels.unique().tolist()):
            start = x[labels == label].float().to(self.device)
            runs[kind, label] = chain_rewards(
                self.denoiser,
                self.table,
                index,
                start,
                self.rewards[kind, label].log_ratio,
                self.repeats,
                self.generator,
                cond=torch.full((len(start),), label, device=self.device),
            )

        def golden(kind: str, w: float) -> Tensor:
            out = torch.empty_like(x)
            for label in labels.unique().tolist():
                out[labels == label] = golden_of(*runs[kind, label], w).to(x)
            self.seen[index, kind, w] = out
            return out

        return golden


def simulation_errors(
    chains: Chains, oracle: Oracle, table: Table, points: Points, w: float
) -> dict[str, dict[str, float]]:
    """How far simulated golden guidance is from the exact one, at what `chains` was asked for at w.

    Returns:
        kind -> size (mean length of exact golden guidance over steps and points), error (mean
        distance of the simulated one to it).
    """
    found: dict[str, dict[str, float]] = {}
    for (index, kind, weight), simulated in chains.seen.items():
        if weight != w:
            continue
        row = table.rows[index]
        exact = oracle.at(row, index, *points(row))(kind, w)
        sums = found.setdefault(kind, {"size": 0.0, "error": 0.0})
        sums["size"] += float(exact.norm(dim=1).mean()) / len(table.rows)
        sums["error"] += float((simulated - exact).norm(dim=1).mean()) / len(table.rows)
    return found


@dataclass
class Scores:
    """One method and estimator, at every step where w > 0 (lists of one length).

    Args:
        steps: rows of the table. wins: win ratios.
        errors, baseline: mean distances to golden guidance with and without REG.
        felt, counts: win ratios where the distance without REG is above FELT, and how many points
            that are; NaN where it nowhere is.
    """

    steps: list[int] = field(default_factory=list)
    wins: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    baseline: list[float] = field(default_factory=list)
    felt: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def add(self, step: int, guided: Tensor, plain: Tensor, target: Tensor) -> None:
        """One more step: guidance with and without REG and golden guidance, each (G, 2)."""
        with_reg, without = ((part - target).norm(dim=1) for part in (guided, plain))
        much = without > FELT
        self.counts.append(int(much.sum()))
        self.steps.append(step)
        self.wins.append(win_ratio(guided, plain, target))
        self.errors.append(float(with_reg.mean()))
        self.baseline.append(float(without.mean()))
        self.felt.append(
            win_ratio(guided[much], plain[much], target[much]) if self.counts[-1] else float("nan")
        )

    @property
    def mean(self) -> float:
        """Win ratio over steps, in [0, 1]."""
        return sum(self.wins) / len(self.wins)

    @property
    def error_ratio(self) -> float:
        """Sum over steps of the mean error with REG, over the same without."""
        return sum(self.errors) / sum(self.baseline)


def rectified_terms(
    model: Model,
    kind: str,
    row: Row,
    index: int,
    x: Tensor,
    labels: Tensor,
    estimators: Sequence[str] = ESTIMATORS,
) -> tuple[Tensor, dict[str, Tensor]]:
    """delta and K^T delta by each estimator, in units of grad log at weight 1, each (G, 2).

    Every estimator stands at the point without a past: `jvp` and `fd_batched` have no previous
    delta there and take the exact direction in a second pass.
    """
    unit = row.alpha / row.sigma**2
    found: dict[str, Tensor] = {}
    delta = torch.empty(0)
    for name in estimators:
        probes = SampleNoise(range(len(x)), "probes") if name.startswith("diagonal") else None
        point = Point(
            x, row, index, model.denoiser, model.reference(kind), labels, {}, probes=probes
        )
        with torch.no_grad():
            _, rectified, delta = make(name)(point, Delta())
        found[name] = unit * rectified
    return unit * delta, found


def win_ratios(
    model: Model,
    table: Table,
    golden: Golden,
    points: Points,
    w: float,
    *,
    methods: Sequence[str] = tuple(METHODS),
    estimators: Sequence[str] = ESTIMATORS,
    device: torch.device | str = "cpu",
) -> dict[str, dict[str, Scores]]:
    """Win ratio of every method with every estimator at every step of the table.

    Args:
        model: guided.
        table: of the chain.
        golden: what is right.
        points: row -> x_t (G, 2) float64 and labels (G,), on the CPU.
        w: the methods' mean weight, scale - 1 of vanilla guidance.
        device: where the networks are.
    """
    weights = {name: METHODS[name].weight(w) for name in methods}
    found = {name: {estimator: Scores() for estimator in estimators} for name in methods}
    for index, row in enumerate(table.rows):
        at = {name: weight(row, table) for name, weight in weights.items()}
        active = [name for name in methods if at[name] > 0]
        x, labels = points(row)
        right = golden.at(row, index, x, labels)
        terms = {
            kind: rectified_terms(
                model, kind, row, index, x.to(device), labels.to(device), estimators
            )
            for kind in sorted({METHODS[name].reference for name in active})
        }
        for name in active:
            kind, weight = METHODS[name].reference, at[name]
            target = right(kind, weight)
            plain = weight * terms[kind][0].cpu()
            for estimator, term in terms[kind][1].items():
                found[name][estimator].add(index, weight * term.cpu(), plain, target)
    return found
