"""Two methods on a mixture in the plane whose target is known: clouds, guidance arrows, cost."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import oracles
from ..calibration.damping import Damping, calibrate_damping
from ..engine import Engine
from ..errors import choice
from ..guide import Guide
from ..loop.stats import Stats
from ..pictures.plane import draw_arrows, draw_cloud, draw_target, frame
from ..schedules import EDM
from ..values import as_float, store
from .methods import METHODS, as_scale, as_within, colour_of, guidance_of
from .view import Picture, View, Wanted, always, png, stopping

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MIXTURE", "MODEL", "MixtureChoices", "Run", "compare", "sobol_noise"]

MIXTURE = oracles.two_class_2d()
MODEL = MIXTURE.denoiser(schedule=EDM(sigma_min=0.01, sigma_max=20.0))
COUNT, TARGET, GRID, FINE = 400, 2000, 15, 101
LIMITS = (-1.9, 1.6), (-1.5, 1.7)


@dataclass(frozen=True)
class MixtureChoices:
    """What a visitor chose.

    Args:
        methods: two names of METHODS.
        scale: guidance scale in [1, 10].
        level: noise level of the arrows, in [0.05, 5].
        steps: Heun steps in [2, 60].
        seed: of the noise, in [0, 9999].

    Raises:
        InputError: a value out of range, an unknown method.
    """

    methods: tuple[str, str] = ("CFG", "REG (auto)")
    scale: float = 3.0
    level: float = 0.5
    steps: int = 18
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.methods:
            choice("method", name, METHODS)
        remedy = "Give a noise level from 0.05 to 5"
        store(
            self,
            scale=as_scale(self.scale),
            level=as_float("level", self.level, remedy, lambda v: 0.05 <= v <= 5),
            steps=as_within("steps", self.steps, 2, 60),
            seed=as_within("seed", self.seed, 0, 9999),
        )


@dataclass(frozen=True)
class Run:
    """One method: its samples, how far they are from the target, their cost, its arrows."""

    points: Tensor
    distance: float
    stats: Stats
    arrows: tuple[Tensor, Tensor]


@lru_cache(1)
def damping() -> Damping:
    """The mixture's, measured once."""
    return calibrate_damping(MODEL, torch.zeros(256, dtype=torch.long), progress=False)


def sobol_noise(count: int, seed: int = 0) -> Tensor:
    """Unit noise (count, 2) in float64 from one scrambled Sobol sequence, so that what differs
    between two methods is theirs."""
    sobol = torch.quasirandom.SobolEngine(2, scramble=True, seed=seed)
    uniform = sobol.draw(count, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    return torch.special.ndtri(uniform)


@lru_cache(64)
def target(scale: float) -> Tensor:
    """Draws (TARGET, 2) of what guidance at the scale is to produce."""
    return MIXTURE.target_sampler(scale - 1)(TARGET, torch.Generator().manual_seed(0))


@lru_cache(64)
def floor(scale: float) -> float:
    """The energy distance of COUNT draws from the target itself."""
    other = MIXTURE.target_sampler(scale - 1)(COUNT, torch.Generator().manual_seed(1))
    return oracles.energy_distance(other, target(scale))


def reach_of(level: float) -> float:
    """Half the width of the arrows' panel, which grows with the noise."""
    return float((1.5**2 + (2.2 * level) ** 2) ** 0.5)


def run(choices: MixtureChoices, method: str, wanted: Wanted = always) -> Run:
    """Sample one method, score it, and ask for its guidance on a grid.

    Raises:
        Stale: `wanted` is no longer true.
    """
    guidance = guidance_of(method, choices.scale, damping)
    engine = Engine(
        MODEL,
        guidance=guidance,
        solver="heun",
        steps=choices.steps,
        dtype=torch.float64,
        progress=False,
    )
    noise, labels = sobol_noise(COUNT, choices.seed), torch.zeros(COUNT, dtype=torch.long)
    out = engine.sample(labels, noise=noise, callback=stopping(wanted))
    distance = oracles.energy_distance(out.samples, target(choices.scale))
    feet = _feet(choices.level)
    labels = torch.zeros(len(feet), dtype=torch.long)
    shift = Guide(MODEL, labels, guidance=guidance)(feet, choices.level) - Guide(
        MODEL, labels, scale=1.0, rectify=None
    )(feet, choices.level)
    return Run(out.samples, distance, out.stats, (feet, shift))


def _feet(level: float) -> Tensor:
    """Points (n, 2) of a grid where the noisy class 0 has at least 1 % of its largest density."""
    reach = reach_of(level) * (1 - 1 / GRID)
    line = torch.linspace(-reach, reach, GRID, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    log = MIXTURE.log_prob(grid, 1.0, level, y=0)
    return grid[log > log.max() + torch.tensor(0.01).log()]


def compare(choices: MixtureChoices, wanted: Wanted = always) -> View:
    """Both methods from the same noise: a picture each, and their cost.

    Raises:
        Stale: `wanted` is no longer true.
    """
    runs = [run(choices, method, wanted) for method in choices.methods]
    longest = max(float(each.arrows[1].norm(dim=1).max()) for each in runs)
    pictures, rows = [], []
    for method, each in zip(choices.methods, runs, strict=True):
        alt = (
            f"{method}: {COUNT} samples at scale {choices.scale:g} over the target's contours, "
            f"energy distance {each.distance:.4f}; below, its guidance at noise level "
            f"{choices.level:g}."
        )
        pictures.append(Picture(png(figure, choices, method, each, longest), alt))
        rows.append(
            (
                method,
                f"{each.stats.nfe:.1f}",
                f"{each.stats.backward:g}",
                f"{each.stats.seconds:.2f}",
                f"{each.distance:.4f}",
            )
        )
    last = ("the target itself", "", "", "", f"{floor(choices.scale):.4f}")
    head = ("method", "evaluations a sample", "backward passes", "seconds", "energy distance")
    note = (
        f"Energy distance of {COUNT} samples to {TARGET:,} draws of the target; lower is better. "
        "The last row is what as many draws of the target itself score."
    )
    return View(tuple(pictures), head, (*rows, last), (note,))


def figure(choices: MixtureChoices, method: str, run: Run, longest: float) -> Figure:
    """The cloud above, the arrows below; arrows of both methods share one unit."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(4.2, 8.4))  # laid out by hand: matplotlib's own way takes 0.1 s
    place = {"left": 0.02, "right": 0.98, "top": 0.96, "bottom": 0.03, "hspace": 0.17}
    above, below = made.subplots(2, 1, gridspec_kw=place)
    colour = colour_of(method)
    draw_target(above, MIXTURE, choices.scale - 1, FINE)
    draw_cloud(above, run.points, colour)
    frame(above, *LIMITS)
    above.set_title(f"{method}, scale {choices.scale:g}", color=colour)
    lost = int((~_inside(run.points)).sum())
    outside = f", {lost} samples outside the picture" if lost else ""
    above.set_xlabel(f"distance to the target {run.distance:.4f}{outside}")
    feet, shift = run.arrows
    reach = reach_of(choices.level)
    unit = 4 * reach / GRID / max(longest, 1e-9)
    draw_arrows(below, MIXTURE, (feet, shift * unit), colour, choices.level, reach, FINE)
    frame(below, (-reach, reach), (-reach, reach))
    below.set_title(f"what guidance adds at noise level {choices.level:g}", fontsize=11)
    below.set_xlabel(f"longest arrow {float(shift.norm(dim=1).max()):.2f}")
    return made


def _inside(points: Tensor) -> Tensor:
    """Which points the cloud's panel shows, (n,)."""
    low, high = torch.tensor(LIMITS, dtype=points.dtype).T
    return ((points >= low) & (points <= high)).all(1)
