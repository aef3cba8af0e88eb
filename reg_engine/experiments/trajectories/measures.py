"""All runs of the trajectories experiment, and what is measured on each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...oracles import GaussianMixture, energy_distance
from .nets import SCHEDULE, Parts
from .paths import Paths, guided_paths

SOURCES = ("exact", "mlp", "linear", "cfg")  # a classifier's name, or none at all
ESTIMATOR = "vjp"  # K^T delta without further assumptions; in one dimension K is a number
MISLEADING = ("flipped", "shifted")
MISLED_AT = ((1.0, False), (4.0, False), (4.0, True))  # (scale, rectified)


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


@dataclass
class Study:
    """Runs every combination once and keeps its trajectories.

    Args:
        parts: exact and trained denoisers and classifiers.
        mixture: the data.
        count: starts a class. steps: Heun steps.
        generator: for the draws of the targets.
    """

    parts: Parts
    mixture: GaussianMixture
    count: int
    steps: int
    generator: torch.Generator
    _paths: dict[Any, Paths] = field(default_factory=dict)
    _targets: dict[float, Tensor] = field(default_factory=dict)

    @property
    def plain(self) -> Paths:
        """The exact conditional model: what every displacement is counted from."""
        return self.paths(Key("exact", "cfg", False, 1.0))

    def paths(self, key: Key, bayes: bool = True) -> Paths:
        """The trajectories of one run; `bayes`: see `guided_paths`."""
        if bayes and key.scale == 1:  # w = 0: there is nothing to rectify
            key = key._replace(rectified=False)
        rectify = ESTIMATOR if key.rectified else None
        denoiser = self.parts.denoisers[key.denoiser]
        classifier = None if key.source == "cfg" else self.parts.classifiers[key.source]
        given = (denoiser, classifier, key.scale, rectify, self.count, self.steps, bayes)
        return self._kept((key, bayes), lambda: guided_paths(*given))

    def golden(self, scale: float) -> Paths:
        """Optimal guidance (Theorem 4.1 of REG), which samples the tilted target."""

        def made() -> Paths:
            denoiser = self.mixture.golden_denoiser(scale - 1, schedule=SCHEDULE, nodes=65)
            return guided_paths(denoiser, None, 1.0, None, self.count, self.steps)

        return self._kept(scale, made)

    def _kept(self, name: Any, made: Callable[[], Paths]) -> Paths:
        if name not in self._paths:
            self._paths[name] = made()
        return self._paths[name]

    def measured(self, paths: Paths, scale: float) -> dict[str, float]:
        """The numbers of one set of trajectories.

        displacement, end: see `displacement`, averaged over the times, and of the samples.
        energy: energy distance of the samples to the tilted target of class 1.
        golden: path_distance to optimal guidance at the same scale.
        wrong: share of samples on the other class's side.
        """
        if scale not in self._targets:
            self._targets[scale] = target_quantiles(self.mixture, scale - 1, self.generator)
        moved = displacement(paths, self.plain)
        return {
            "displacement": float(moved.mean()),
            "end": float(moved[-1]),
            "energy": energy_distance(paths.ends, self._targets[scale]),
            "golden": path_distance(paths, self.golden(scale)),
            "wrong": float((paths.ends < 0).double().mean()),
        }

    def row(self, key: Key, paths: Paths | None = None) -> dict[str, Any]:
        """A key's fields and what its trajectories measure; `paths`: others in their place."""
        return key._asdict() | self.measured(paths or self.paths(key), key.scale)

    def rows(self, scales: Sequence[float]) -> list[dict[str, Any]]:
        """Every combination at every scale, measured; first "golden" and "unguided"."""
        found: list[dict[str, Any]] = []
        for scale in scales:
            for source, paths in (("golden", self.golden(scale)), ("unguided", self.plain)):
                found.append(self.row(Key("exact", source, False, scale), paths))
            found += [
                self.row(Key(denoiser, source, rectified, scale))
                for denoiser in self.parts.denoisers
                for source in SOURCES
                for rectified in (False, True)
            ]
        return found


def eq6(study: Study) -> dict[str, float]:
    """Path distance, at scale 1, between a conditional model and CG with the same denoiser.

    Keys: denoiser_classifier.
    """
    return {
        f"{denoiser}_{source}": path_distance(
            *(study.paths(Key(denoiser, of, False, 1.0)) for of in (source, "cfg"))
        )
        for denoiser in ("exact", "learned")
        for source in SOURCES[:3]
    }


def budget(study: Study, scales: Sequence[float]) -> list[dict[str, Any]]:
    """Path distances of CG: what guidance itself does, and what exchanging one exact part does.

    guidance: all parts exact, against golden guidance. linear, mlp, network: one part trained,
    against all parts exact at the same scale, with the same rectifier.
    """
    exchanged = {"linear": ("exact", "linear"), "mlp": ("exact", "mlp")}
    exchanged["network"] = ("learned", "exact")
    found = []
    for scale in scales:
        for rectified in (False, True):
            exact = study.paths(Key("exact", "exact", rectified, scale))
            row: dict[str, Any] = {"scale": scale, "rectified": rectified}
            row["guidance"] = path_distance(exact, study.golden(scale))
            for cause, parts in exchanged.items():
                row[cause] = path_distance(study.paths(Key(*parts, rectified, scale)), exact)
            found.append(row)
    return found


def choice_of_k(study: Study, scales: Sequence[float]) -> list[dict[str, float]]:
    """CG with exact parts, rectified by the K of the Bayes conditional or the unconditional model.

    Energy distances to the target, and with `_wrong` the shares on the wrong side; two_ways: the
    path distance between the two ways to write unrectified CG.
    """
    found = []
    for scale in scales:
        plain, rectified = (Key("exact", "exact", r, scale) for r in (False, True))
        runs = {
            "plain": study.paths(plain),
            "conditional": study.paths(rectified),
            "unconditional": study.paths(rectified, bayes=False),
        }
        row = {"scale": scale}
        for name, paths in runs.items():
            measured = study.measured(paths, scale)
            row |= {name: measured["energy"], f"{name}_wrong": measured["wrong"]}
        row["two_ways"] = path_distance(study.paths(plain, bayes=False), runs["plain"])
        found.append(row)
    return found


def misled(study: Study) -> list[dict[str, Any]]:
    """CG on the exact denoiser with the exact and with misleading classifiers, measured."""
    return [
        study.row(Key("exact", source, rectified, scale))
        for source in ("exact", *MISLEADING)
        for scale, rectified in MISLED_AT
    ]
