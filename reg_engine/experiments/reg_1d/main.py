"""REG in one dimension, the paper's toy (Fig. 1 and 5): guidance gradients against golden ones."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ...networks.denoisers import Denoiser
from ...rectifiers import FD, JVP, VJP, Diagonal, DiagonalBatched, FDBatched, Paper, Rectifier
from ...resume import digest
from ...storage.shards import Shards
from ..report import Report
from ..toys import ToyTask, toy_denoiser, train_toy
from . import figures
from .fields import (
    COND,
    SCHEDULE,
    TABLE,
    VARIANTS,
    WEIGHTS,
    chain_ends,
    compare,
    exact_pair,
    golden_by_chains,
    golden_by_limit,
    golden_exact,
    grid,
    guidance,
    mixture,
)
from .page import AUTHORS, COMPARISONS, claims, write

ESTIMATORS: dict[str, Rectifier] = {
    "vjp": VJP(),
    "paper": Paper(),
    "diagonal": Diagonal(),
    "jvp": JVP(),
    "fd, rho 0.001": FD(1e-3),
    "fd, rho 0.01": FD(1e-2),
    "fd, rho 0.1": FD(1e-1),
    "fd_batched, rho 0.01": FDBatched(1e-2),
    "diagonal_batched, rho 0.01": DiagonalBatched(1e-2),
}
NEAR_ZERO = 0.02  # |x| below which a relative finite difference step is lost in rounding

Pair = tuple[Tensor, Tensor]  # gradients of CFG and of REG for w = 1, each (rows, G, 1)


@dataclass(frozen=True)
class Size:
    """How much of everything; the full run trains on as many examples as the authors do."""

    points: int  # of the grid
    repeats: int  # chains from every point
    steps: int  # of training, for each network
    batch_size: int = 256
    examples: int = 8000  # of each distribution


FULL = Size(points=1000, repeats=100, steps=6250)
QUICK = Size(points=250, repeats=20, steps=600)


def run(report: Report) -> None:
    """Fill the report; see the page for what is asked."""
    size = QUICK if report.quick else FULL
    setting = {"cond": COND, "uncond": VARIANTS, "weights": WEIGHTS}
    report.numbers |= {
        "setting": {**asdict(size), **setting, "sigma_max": TABLE.rows[0].sigma},
        "t": [int(row.t) + 1 for row in TABLE.rows],
        "sigma": [row.sigma for row in TABLE.rows],
        "authors": AUTHORS,
    }
    cond, refs = _networks(report, size)
    x = grid(size.points, torch.float32, report.device)
    goldens = _goldens(report, size, cond, x)
    gradients = {}
    for name in VARIANTS:
        report.say(f"guidance with the reference of {name}")
        gradients[name] = {
            "nets": _guidance((cond, refs[name]), x),
            "exact": _guidance(exact_pair(name), x.double().cpu()),
        }
    _comparisons(report, goldens, gradients, x)
    pair = (cond, refs["shipped"])
    report.numbers["estimators"] = _estimators(pair, x, goldens["shipped"]["limit"])
    for name in VARIANTS:
        cfg, reg = gradients[name]["nets"]
        shown = {"chains": goldens[name]["chains"], "golden": goldens[name]["limit"]}
        figures.draw_variant(report, name, x.cpu(), {**shown, "cfg": cfg, "reg": reg})
    report.draw("win_ratios", figures.win_ratios(report.numbers["variants"]))
    claims(report)
    write(report)


def _networks(report: Report, size: Size) -> tuple[Denoiser, dict[str, Denoiser]]:
    """Three separate networks: the conditional one, and a reference for each variant."""
    sources = {"cond": ("shipped", 0), **{name: (name, 1) for name in VARIANTS}}
    made, found = {}, {}
    for stream, (name, (variant, label)) in enumerate(sources.items()):
        exact = mixture(variant)
        points = exact.sample(size.examples, label, report.generator(stream))
        task = ToyTask(points, None, SCHEDULE, name=name)
        net = train_toy(task, report, steps=size.steps, batch_size=size.batch_size)
        made[name] = toy_denoiser(net, task)
        fresh = exact.sample(2000, label, report.generator(20 + stream))
        found[name] = {"epsilon_rmse": _rmse(made[name], fresh, label, variant)}
    parameters = sum(p.numel() for module in made["cond"].modules for p in module.parameters())
    report.numbers["networks"] = {"parameters": parameters, **found}
    return made.pop("cond"), made


def _rmse(net: Denoiser, x0: Tensor, label: int, variant: str) -> float:
    """Root mean square error of the predicted noise, over all steps, where noisy data are."""
    squares, exact = [], mixture(variant)
    generator = torch.Generator().manual_seed(0)
    for row in TABLE.rows:
        noise = torch.randn(x0.shape, dtype=x0.dtype, generator=generator)
        x = (row.alpha * x0 + row.sigma * noise).float()
        with torch.no_grad():
            found = net(x.to(net.device or "cpu"), row.t, None).cpu()
        wanted = exact.denoised(x, row.alpha, row.sigma, label)
        squares.append(float((row.alpha / row.sigma * (found - wanted)).square().mean()))
    return math.sqrt(math.fsum(squares) / len(squares))


def _goldens(report: Report, size: Size, cond: Denoiser, x: Tensor) -> dict[str, dict[str, Tensor]]:
    """Variant -> kind -> grad log E_t, (rows, G, W).

    The conditional network is the same in both variants: its chains are simulated once.
    """
    settings = {"seed": report.seed, "model": digest(cond), "x": x, **asdict(size)}
    shards = Shards(report.work / "golden", settings)
    report.say(f"golden guidance: {size.repeats} chains from {size.points} points at every step")
    ends = chain_ends(cond, x, size.repeats, report.generator(10), shards)
    path = chain_ends(cond, x, 1, report.generator(11), shards, stochastic=False)
    report.say("golden guidance: infinitely many chains, and the exact posterior")
    mixtures = [mixture(name) for name in VARIANTS]
    limit = golden_by_limit(cond, x, mixtures)
    exact_limit = golden_by_limit(exact_pair("shipped")[0], x.double().cpu(), mixtures)
    return {
        name: {
            "chains": golden_by_chains(ends, exact),
            "deterministic": golden_by_chains(path, exact),
            "limit": limit[number],
            "exact_limit": exact_limit[number],
            "exact": golden_exact(exact, x),
        }
        for number, (name, exact) in enumerate(zip(VARIANTS, mixtures, strict=True))
    }


def _guidance(
    pair: tuple[Denoiser, Denoiser], x: Tensor, rectifier: Rectifier | None = None
) -> Pair:
    both = [guidance(pair, i, x, rectifier or Paper()) for i in range(len(TABLE.rows))]
    return torch.stack([p.cpu() for p, _ in both]), torch.stack([r.cpu() for _, r in both])


def _comparisons(
    report: Report,
    goldens: dict[str, dict[str, Tensor]],
    gradients: dict[str, dict[str, Pair]],
    x: Tensor,
) -> None:
    sigma = torch.tensor(report.numbers["sigma"], dtype=torch.float64)[:, None, None]
    report.numbers["variants"] = {
        name: {
            **{
                key: compare(*gradients[name][source], kinds[golden], mixture(name), x)
                for key, (source, golden, _) in COMPARISONS.items()
            },
            "noise_of_chains": (sigma * (kinds["chains"] - kinds["limit"]).abs())
            .mean((0, 1))
            .tolist(),
        }
        for name, kinds in goldens.items()
    }
    report.numbers["rectifier_range"] = {}
    for source, (plain, rectified) in gradients["shipped"].items():
        factor = (rectified / plain)[plain != 0]
        report.numbers["rectifier_range"][source] = [float(factor.min()), float(factor.max())]


def _estimators(
    pair: tuple[Denoiser, Denoiser], x: Tensor, golden: Tensor
) -> dict[str, dict[str, float]]:
    """Every estimator on the trained networks: win ratio for w = 1, and distance from `vjp`."""
    found: dict[str, dict[str, float]] = {}
    near = x[:, 0].cpu().abs() <= NEAR_ZERO
    _, first = _guidance(pair, x, ESTIMATORS["vjp"])
    for name, estimator in ESTIMATORS.items():
        plain, rectified = _guidance(pair, x, estimator)
        off = (rectified - first).abs() / first.abs().mean(1, keepdim=True)
        found[name] = {
            "win_mean": compare(plain, rectified, golden, mixture("shipped"), x)[0]["win_mean"],
            "mean_difference": float(off[:, ~near].mean()),
            "largest_difference": float(off[:, ~near].max()),
            "near_zero_difference": float(off[:, near].max()),
        }
    return found
