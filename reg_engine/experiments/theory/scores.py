"""Guided samples of a 2-D mixture, and their energy distance to the target that guidance aims at.

Two measures keep the scores solid:

* The initial noise is a scrambled Sobol sequence, the same for every method. Samples are a smooth
  function of their noise, so an evenly spread set of noises covers the distribution better than
  independent draws do (low discrepancy): scores of 4,096 samples repeat to about 2 % from scramble
  to scramble, where independent draws scatter by half, and what differs between two methods is
  theirs. Sobol sets are balanced at powers of two.
* A score is a mean over several sets of target draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ... import schedules
from ...engine import Engine
from ...errors import InputError
from ...guidance.guidance import Guidance
from ...guidance.weights import Interval
from ...networks.denoisers import Denoiser
from ...oracles import GaussianMixture, TiltedGrid, grid_denoiser
from ...oracles.energy import mean_distance
from ...schedules import Schedule

SCHEDULE = schedules.EDM(sigma_min=0.01, sigma_max=20.0)
INTERVAL = (0.28, 2.90)  # noise levels of the authors' interval runs (their EDM2 command line)


def sobol_noise(count: int, dim: int = 2, scramble: int = 0) -> Tensor:
    """Unit normal noise (count, dim), float64, by inversion of a scrambled Sobol sequence.

    Args:
        count: a power of two.
        scramble: seed of the scrambling; different ones are independent replicas.

    Raises:
        InputError: count is not a power of two.
    """
    if count < 1 or count & (count - 1):
        raise InputError(
            "count", f"is {count}", "Give a power of two: Sobol sets are balanced there"
        )
    engine = torch.quasirandom.SobolEngine(dim, scramble=True, seed=scramble)
    uniform = engine.draw(count, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    return torch.special.ndtri(uniform)


class Target:
    """Draws of the tilted target p(x_0|y)^(1+w) / p(x_0)^w, and scores against them.

    Args:
        mixture: whose class 0 is guided.
        w: scale - 1, >= 0.
        count, draws: points in a set of draws, and how many independent sets.
        seed: of the first set; the others follow.
    """

    def __init__(
        self, mixture: GaussianMixture, w: float, count: int, draws: int = 4, seed: int = 0
    ) -> None:
        sampler = mixture.target_sampler(w)
        self.w, self.count = w, count
        self.sets = [sampler(count, torch.Generator().manual_seed(seed + k)) for k in range(draws)]
        self._within = sum(mean_distance(points, points) for points in self.sets) / draws

    def score(self, samples: Tensor) -> float:
        """Mean of `energy_distance(samples, set)` over the sets (its within-terms kept)."""
        samples = samples.double()
        across = mean_distance(samples, torch.cat(self.sets))
        return max(2 * across - mean_distance(samples, samples) - self._within, 0.0)

    def floor(self, count: int) -> float:
        """What `count` independent target draws score on average: E|x - x'| (1/count + 1/m).

        The bias of the V-statistic; E|x - x'| is estimated without the pairs of a point with
        itself.
        """
        apart = self._within * self.count / (self.count - 1)
        return apart * (1 / count + 1 / self.count)


@lru_cache(maxsize=2)
def grid_of(mixture: GaussianMixture) -> TiltedGrid:
    """Golden guidance of class 0, kept: its tables are most of its work."""
    return TiltedGrid(mixture)


@dataclass(frozen=True)
class Sampler:
    """Samples class 0 of a mixture under every method, from the same noise.

    Args:
        mixture: 2-D, exact denoisers.
        noise: unit noise (N, 2).
        solver, steps, schedule: of the engine.
    """

    mixture: GaussianMixture
    noise: Tensor
    solver: str = "heun"
    steps: int = 18
    schedule: Schedule = SCHEDULE

    def guided(self, weight: Any, rectify: str | None, **options: Any) -> tuple[Tensor, float]:
        """Samples (N, 2) with a weight or scale and an estimator (None: CFG), and nfe a sample."""
        model = self.mixture.denoiser(schedule=self.schedule)
        return self._run(model, Guidance(weight, rectify=rectify), **options)

    def unguided(self) -> Tensor:
        """The conditional model alone, (N, 2)."""
        return self.guided(1.0, None)[0]

    def interval(self, scale: float, lo: float = INTERVAL[0], hi: float = INTERVAL[1]) -> Tensor:
        """CFG between two noise levels alone."""
        return self.guided(Interval(scale, lo, hi), None)[0]

    def golden(self, w: float) -> Tensor:
        """Under optimal guidance."""
        model = grid_denoiser({0: grid_of(self.mixture)}, w, self.schedule)
        return self._run(model, Guidance(1.0, rectify=None))[0]

    def _run(self, model: Denoiser, guidance: Guidance, **options: Any) -> tuple[Tensor, float]:
        engine = Engine(
            model,
            guidance=guidance,
            solver=self.solver,
            steps=self.steps,
            dtype=torch.float64,
            progress=False,
            **options,
        )
        labels = torch.zeros(len(self.noise), dtype=torch.long)
        out = engine.sample(labels, noise=self.noise)
        return out.samples, out.stats.nfe
