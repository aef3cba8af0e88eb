"""All runs of the trajectories experiment, and what is measured on each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...oracles import GaussianMixture, energy_distance
from .nets import SCHEDULE, Parts
from .paths import Paths, classifier_paths, free_paths, shifted_paths

__all__ = [
    "SOURCES",
    "Key",
    "Study",
    "displacement",
    "hundredths",
    "path_distance",
    "short",
    "target_quantiles",
]

SOURCES = ("exact", "mlp", "linear", "cfg")  # a classifier's name, or none at all
ESTIMATOR = "vjp"  # K^T delta without further assumptions; in one dimension K is a number


class Key(NamedTuple):
    """One run: which denoiser, where the guidance comes from, with REG or not, at which scale."""

    denoiser: str
    source: str
    rectified: bool
    scale: float


def displacement(paths: Paths, plain: Paths) -> Tensor:
    """How far from the boundary `plain` was moved at each time, (R + 1,), averaged over starts.

    In units of x_t, whose deviation is near 1 at every time of a variance preserving schedule.
    Positive is away from the boundary x_t = 0, towards and beyond the class that was asked for.
    """
    return (paths.signed - plain.signed).mean((1, 2))


def path_distance(paths: Paths, other: Paths) -> float:
    """Root mean square distance of trajectories from the same starts, over starts and times."""
    return float((paths.signed - other.signed).square().mean().sqrt())


def target_quantiles(mixture: GaussianMixture, w: float, generator: torch.Generator) -> Tensor:
    """1024 points that stand for p(x_0|1)^(1+w)/p(x_0)^w: every 64th of 65,536 sorted draws."""
    draws = mixture.target_sampler(w, 1)(65_536, generator)
    return draws.sort(0).values[32::64]


def short(value: float) -> str:
    """Two digits; what is zero to rounding is 0."""
    if abs(value) < 1e-12:
        return "0"
    if abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:.2g}" if abs(value) < 1 else f"{value:.2f}"


def hundredths(value: float) -> str:
    """Two places after the point, for what is measured in units of x_t."""
    return f"{value:.2f}".replace("-0.00", "0.00")


@dataclass
class Study:
    """Runs every combination once and keeps its trajectories.

    Args:
        parts: exact and trained denoisers and classifiers.
        mixture: the data.
        count: starts a class. steps: Heun steps.
        seed: a generator for the draws of the targets.
    """

    parts: Parts
    mixture: GaussianMixture
    count: int
    steps: int
    generator: torch.Generator

    def __post_init__(self) -> None:
        self._found: dict[Any, Paths] = {}
        self._targets: dict[float, Tensor] = {}

    @property
    def plain(self) -> Paths:
        """The exact conditional model: what every displacement is counted from."""
        return self.paths(Key("exact", "cfg", False, 1.0))

    def paths(self, key: Key) -> Paths:
        """The trajectories of one run."""
        if key.scale == 1:  # w = 0: there is nothing to rectify
            key = key._replace(rectified=False)
        if key not in self._found:
            denoiser, rectify = self.parts.denoisers[key.denoiser], ESTIMATOR * key.rectified
            common = (key.scale, rectify or None, self.count, self.steps)
            if key.source == "cfg":
                self._found[key] = free_paths(denoiser, *common)
            else:
                classifier = self.parts.classifiers[key.source]
                self._found[key] = classifier_paths(denoiser, classifier, *common)
        return self._found[key]

    def shifted(self, key: Key) -> Paths:
        """As `paths`, CG on the unconditional model with the K of that model."""
        name = ("shifted", key)
        if name not in self._found:
            self._found[name] = shifted_paths(
                self.parts.denoisers[key.denoiser],
                self.parts.classifiers[key.source],
                key.scale,
                (ESTIMATOR * key.rectified) or None,
                self.count,
                self.steps,
            )
        return self._found[name]

    def golden(self, scale: float) -> Paths:
        """Optimal guidance (Theorem 4.1 of REG), which samples the tilted target."""
        if ("golden", scale) not in self._found:
            denoiser = self.mixture.golden_denoiser(scale - 1, schedule=SCHEDULE, nodes=65)
            self._found["golden", scale] = free_paths(denoiser, 1.0, None, self.count, self.steps)
        return self._found["golden", scale]

    def target(self, scale: float) -> Tensor:
        """Points of the tilted target, (1024, 1), of class 1."""
        if scale not in self._targets:
            self._targets[scale] = target_quantiles(self.mixture, scale - 1, self.generator)
        return self._targets[scale]

    def measured(self, paths: Paths, scale: float) -> dict[str, float]:
        """The numbers of one set of trajectories.

        displacement, end: see `displacement`, averaged over the times, and of the samples.
        energy: energy distance of the samples to the tilted target.
        golden: path_distance to optimal guidance at the same scale.
        wrong: share of samples on the other class's side.
        """
        moved = displacement(paths, self.plain)
        return {
            "displacement": float(moved.mean()),
            "end": float(moved[-1]),
            "energy": energy_distance(paths.ends, self.target(scale)),
            "golden": path_distance(paths, self.golden(scale)),
            "wrong": float((paths.ends < 0).double().mean()),
        }

    def rows(self, scales: Sequence[float]) -> list[dict[str, Any]]:
        """Every combination at every scale, measured; first "golden" and "unguided"."""
        found: list[dict[str, Any]] = []
        for scale in scales:
            for source, paths in (("golden", self.golden(scale)), ("unguided", self.plain)):
                key = Key("exact", source, False, scale)
                found.append(key._asdict() | self.measured(paths, scale))
            for denoiser in self.parts.denoisers:
                for source in SOURCES:
                    for rectified in (False, True):
                        key = Key(denoiser, source, rectified, scale)
                        found.append(key._asdict() | self.measured(self.paths(key), scale))
        return found
