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
from typing import NamedTuple

import torch
from torch import Tensor

from ...guidance.references import BadModel, Unconditional
from ...guidance.weights import Constant, Cosine, Interval, Linear, Weight
from ...networks.denoisers import Denoiser
from ...networks.point import Reference
from ...oracles import TiltedGrid, chain_rewards, golden_of, win_ratio
from ...rectifiers import PRODUCTS, make
from ...solvers import Row, Table
from ..points import guidance_terms
from .golden import CFG, WORSE

ESTIMATORS = tuple(PRODUCTS)
FELT = 0.1  # in units of grad log: x_0 of unit variance has scores of order 1
INTERVAL = (0.28, 2.9)  # noise levels; the authors' interval for EDM2

Points = Callable[[Row], tuple[Tensor, Tensor]]  # row -> x_t (G, 2) float64, labels (G,)
Grids = Mapping[tuple[str, int], TiltedGrid]  # by (kind of reference, label)
# (kind of reference, weight) -> grad log E_t at the points of one step, (G, 2) float64; and what
# prepares it for a row, its index, x_t and labels.
AtWeight = Callable[[str, float], Tensor]
Golden = Callable[[Row, int, Tensor, Tensor], AtWeight]


class Method(NamedTuple):
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


@dataclass(frozen=True)
class Oracle:
    """Exact golden guidance, a `Golden`."""

    grids: Grids

    def __call__(self, row: Row, index: int, x: Tensor, labels: Tensor) -> AtWeight:
        def golden(kind: str, w: float) -> Tensor:
            out = torch.empty_like(x)
            for label in labels.unique().tolist():
                at = labels == label
                out[at] = self.grids[kind, label].golden(x[at], row.alpha, row.sigma, w)
            return out

        return golden


@dataclass(frozen=True)
class Chains:
    """Golden guidance by `repeats` ancestral chains of the model itself, as the paper has it.

    Args:
        denoiser: whose chains. table: of the chain (ddpm). grids: whose ratios are rewarded.
        repeats: chains a point. generator: of their noise.
        device: where the network is.
        seen: what was asked for, by (row index, kind, w): to be compared with the oracle's.
    """

    denoiser: Denoiser
    table: Table
    grids: Grids
    repeats: int
    generator: torch.Generator
    device: torch.device
    seen: dict[tuple[int, str, float], Tensor] = field(default_factory=dict)

    def __call__(self, row: Row, index: int, x: Tensor, labels: Tensor) -> AtWeight:
        runs: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}
        chain = (self.denoiser, self.table, index)
        kinds = {kind for kind, _ in self.grids}
        for kind, label in sorted((k, n) for k in kinds for n in labels.unique().tolist()):
            start = x[labels == label].float().to(self.device)
            cond = torch.full((len(start),), label, device=self.device)
            ratio = self.grids[kind, label].log_ratio
            draws = (self.repeats, self.generator)
            runs[kind, label] = chain_rewards(*chain, start, ratio, *draws, cond=cond)

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
        exact = oracle(row, index, *points(row))(kind, w)
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
        self.steps.append(step)
        self.wins.append(win_ratio(guided, plain, target))
        self.errors.append(float(with_reg.mean()))
        self.baseline.append(float(without.mean()))
        self.counts.append(int(much.sum()))
        felt = win_ratio(guided[much], plain[much], target[much]) if much.any() else float("nan")
        self.felt.append(felt)

    def plain(self) -> dict[str, float | list[float] | list[int]]:
        """For JSON: the win ratio's mean over the steps, in [0, 1]; the error with REG over that
        without, both summed over the steps; and the lists."""
        return {
            "mean": sum(self.wins) / len(self.wins),
            "error_ratio": sum(self.errors) / sum(self.baseline),
            "wins": self.wins,
            "felt": self.felt,
            "felt_points": self.counts,
        }


def rectified_terms(
    model: Model,
    kind: str,
    row: Row,
    index: int,
    x: Tensor,
    labels: Tensor,
    estimators: Sequence[str] = ESTIMATORS,
) -> tuple[Tensor, dict[str, Tensor]]:
    """delta and K^T delta by each estimator, in units of grad log at weight 1, each (G, 2)."""
    at = (model.denoiser, model.reference(kind), row, index, x, labels)
    terms = {name: guidance_terms(*at, make(name)) for name in estimators}
    return terms[estimators[-1]][0], {name: rectified for name, (_, rectified) in terms.items()}


def win_ratios(
    model: Model,
    table: Table,
    golden: Golden,
    points: Points,
    w: float,
    *,
    estimators: Sequence[str] = ESTIMATORS,
    device: torch.device | str = "cpu",
) -> dict[str, dict[str, Scores]]:
    """Win ratio of every method with every estimator at every step of the table.

    Args:
        model: guided.
        table: of the chain.
        golden: what is right.
        points: row -> x_t (G, 2) float64 and labels (G,), on the CPU.
        w: the methods' mean weight, scale - 1 of a constant one.
        device: where the networks are.
    """
    weights = {name: method.weight(w) for name, method in METHODS.items()}
    found = {name: {estimator: Scores() for estimator in estimators} for name in METHODS}
    for index, row in enumerate(table.rows):
        at = {name: weight(row, table) for name, weight in weights.items()}
        active = {name: METHODS[name].reference for name in METHODS if at[name] > 0}
        x, labels = points(row)
        right = golden(row, index, x, labels)
        given = (row, index, x.to(device), labels.to(device), estimators)
        terms = {kind: rectified_terms(model, kind, *given) for kind in sorted({*active.values()})}
        for name, kind in active.items():
            target = right(kind, at[name])
            plain = at[name] * terms[kind][0].cpu()
            for estimator, term in terms[kind][1].items():
                found[name][estimator].add(index, at[name] * term.cpu(), plain, target)
    return found
