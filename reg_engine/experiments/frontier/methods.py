"""What is compared: every method as a weight, a rectifier and a refinement, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ...calibration import Damping, calibrate_damping
from ...engine import Engine
from ...guidance.weights import Interval
from ...networks.denoisers import Denoiser
from ...oracles import GaussianMixture, TiltedGrid, grid_denoiser
from ...rectifiers import RECTIFIERS
from ...solvers import Gibbs
from ..theory.scores import INTERVAL, SCHEDULE, sobol_noise

__all__ = ["BY_NAME", "METHODS", "STEPS", "Draw", "methods_for"]

STEPS = 18  # of heun: 35 evaluations, CFG 70
LOW = (0.05, 0.4)  # noise levels of an interval that suits these mixtures
REFINED = Gibbs(0.4, 4)
TITLES = {
    "unguided": "no guidance",
    "cfg": "CFG",
    "interval": f"interval {INTERVAL[0]:g} to {INTERVAL[1]:g}, as published",
    "low": f"interval {LOW[0]:g} to {LOW[1]:g}",
    "rayleigh": "damping, rayleigh",
    "skipping": "damping, rayleigh, cond alone where F < 0.15",
    "tilt": "damping, tilt",
    "gibbs": f"CFG below {REFINED.level:g}, {REFINED.rounds} Gibbs rounds",
    "blend_gibbs": "`blend`, a Gibbs round at 0.2",
    "golden": "golden",
}
BY_NAME = (
    *("paper", "vjp", "fd_batched", "lazy", "alternate", "lazy_blend", "blend"),
    "characteristic",
)
METHODS = {
    **{name: TITLES[name] for name in ("unguided", "cfg", "interval", "low")},
    **{name: f"`{name}`" for name in BY_NAME if name in RECTIFIERS},
    **{name: TITLES[name] for name in ("rayleigh", "skipping", "tilt", "gibbs", "blend_gibbs")},
    "golden": TITLES["golden"],
}


def methods_for(mixture: GaussianMixture) -> list[str]:
    """Golden guidance is cheap in one and two dimensions only."""
    return [name for name in METHODS if name != "golden" or mixture.dim <= 2]


@dataclass(frozen=True)
class Draw:
    """Samples of class 0 under every method, from one noise.

    Args:
        mixture: with exact denoisers.
        count: samples, a power of two.
        seed: of the noise, the rounds' noise and the calibrations.
        weights: w that tilt is calibrated at.
        calibration: samples of rayleigh and of tilt.
    """

    mixture: GaussianMixture
    count: int
    seed: int
    weights: tuple[float, ...]
    calibration: tuple[int, int] = (64, 512)

    def __call__(self, name: str, w: float) -> tuple[Tensor, float]:
        """Samples (count, dim), float64, and what one costs: evaluations and backward passes."""
        if name == "golden":
            return self._run(self._golden(w), scale=1.0, rectify=None)
        return self._run(self._model, **self._choices(name, w))

    def _choices(self, name: str, w: float) -> dict[str, Any]:
        scale = 1 + w
        if name in RECTIFIERS:
            return {"scale": scale, "rectify": name}
        plain: dict[str, dict[str, Any]] = {
            "unguided": {"scale": 1.0},
            "cfg": {"scale": scale},
            "interval": {"scale": Interval(scale, *INTERVAL)},
            "low": {"scale": Interval(scale, *LOW)},
            "gibbs": {"scale": Interval(scale, 0.0, REFINED.level), "refine": REFINED},
        }
        if name in plain:
            return {"rectify": None, **plain[name]}
        if name == "blend_gibbs":
            return {"scale": scale, "rectify": "blend", "refine": Gibbs(0.2)}
        damping = self._tilt if name == "tilt" else self._rayleigh
        skip = 0.15 if name == "skipping" else 0.0
        return {"scale": damping(scale, skip_below=skip), "rectify": None}

    def _run(self, model: Denoiser, **choices: Any) -> tuple[Tensor, float]:
        engine = Engine(model, steps=STEPS, dtype=torch.float64, progress=False, **choices)
        first = self.seed * self.count
        labels, seeds = torch.zeros(self.count, dtype=torch.long), range(first, first + self.count)
        out = engine.sample(labels, seeds, self._noise)
        return out.samples, out.stats.nfe + out.stats.backward

    @cached_property
    def _model(self) -> Denoiser:
        return self.mixture.denoiser(schedule=SCHEDULE)

    @cached_property
    def _noise(self) -> Tensor:
        return sobol_noise(self.count, self.mixture.dim, self.seed)

    @cached_property
    def _grid(self) -> TiltedGrid:
        return TiltedGrid(self.mixture)

    def _golden(self, w: float) -> Denoiser:
        if self.mixture.dim == 2:
            return grid_denoiser({0: self._grid}, w, SCHEDULE)
        return self.mixture.golden_denoiser(w, schedule=SCHEDULE, nodes=65)

    def _damping(self, method: str, count: int) -> Damping:
        """From the model's own samples, none of which is scored."""
        first = 2**40 + 1000 * self.seed
        scales = [1 + w for w in self.weights]
        choices: dict[str, Any] = {"steps": STEPS, "dtype": torch.float64, "progress": False}
        seeds = range(first, first + count)
        return calibrate_damping(self._model, 0, scales, method=method, seeds=seeds, **choices)

    @cached_property
    def _rayleigh(self) -> Damping:
        return self._damping("rayleigh", self.calibration[0])

    @cached_property
    def _tilt(self) -> Damping:
        return self._damping("tilt", self.calibration[1])
