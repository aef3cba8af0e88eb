"""Comparisons between runs of a Study: both sides of Eq. 6, causes of error, the choice of K."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .measures import SOURCES, Key, Study, path_distance

__all__ = ["MISLEADING", "budget", "choice_of_k", "eq6", "find", "misled"]

MISLEADING = ("flipped", "shifted")
MISLED_AT = ((1.0, False), (4.0, False), (4.0, True))  # (scale, rectified)


def find(rows: Sequence[Mapping[str, Any]], **wanted: object) -> Mapping[str, Any]:
    """The first row whose entries are the wanted ones."""
    return next(row for row in rows if all(row[key] == value for key, value in wanted.items()))


def eq6(study: Study) -> dict[str, float]:
    """Path distance, at scale 1, between a conditional model and CG with the same denoiser.

    Keys: denoiser_classifier.
    """
    found = {}
    for denoiser in ("exact", "learned"):
        conditional = study.paths(Key(denoiser, "cfg", False, 1.0))
        for source in SOURCES[:3]:
            right = study.paths(Key(denoiser, source, False, 1.0))
            found[f"{denoiser}_{source}"] = path_distance(right, conditional)
    return found


def budget(study: Study, scales: Sequence[float]) -> list[dict[str, Any]]:
    """Path distances of CG: what guidance itself does, and what exchanging one exact part does.

    guidance: all parts exact, against golden guidance. linear, mlp, network: one part trained,
    against all parts exact at the same scale, with the same rectifier.
    """
    found = []
    for scale in scales:
        for rectified in (False, True):
            exact = study.paths(Key("exact", "exact", rectified, scale))
            row: dict[str, Any] = {"scale": scale, "rectified": rectified}
            row["guidance"] = path_distance(exact, study.golden(scale))
            for cause, (denoiser, source) in {
                "linear": ("exact", "linear"),
                "mlp": ("exact", "mlp"),
                "network": ("learned", "exact"),
            }.items():
                other = study.paths(Key(denoiser, source, rectified, scale))
                row[cause] = path_distance(other, exact)
            found.append(row)
    return found


def choice_of_k(study: Study, scales: Sequence[float]) -> list[dict[str, float]]:
    """CG with exact parts, rectified by the K of the Bayes conditional or the unconditional model.

    Energy distances to the target, and with `_wrong` the shares on the wrong side; two_ways: the
    path distance between the two ways to write unrectified CG.
    """
    found = []
    for scale in scales:
        plain = study.paths(Key("exact", "exact", False, scale))
        runs = {
            "plain": plain,
            "conditional": study.paths(Key("exact", "exact", True, scale)),
            "unconditional": study.shifted(Key("exact", "exact", True, scale)),
        }
        row = {"scale": scale}
        for name, paths in runs.items():
            measured = study.measured(paths, scale)
            row |= {name: measured["energy"], f"{name}_wrong": measured["wrong"]}
        row["two_ways"] = path_distance(study.shifted(Key("exact", "exact", False, scale)), plain)
        found.append(row)
    return found


def misled(study: Study) -> list[dict[str, Any]]:
    """CG on the exact denoiser with the exact and with misleading classifiers, measured."""
    found = []
    for source in ("exact", *MISLEADING):
        for scale, rectified in MISLED_AT:
            key = Key("exact", source, rectified, scale)
            found.append(key._asdict() | study.measured(study.paths(key), scale))
    return found
