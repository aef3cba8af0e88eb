"""Each method held against CFG's front: at equal confidence and agreement, effective scale and
equal scale.

At equal scale a method that guides less looks better, and is, until CFG gets a smaller scale. So
the question is what CFG has where the judge is as sure of the label (fronts.py), or at the scale
that moves as far (effective.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .fronts import Front, Measured, difference

__all__ = ["against_cfg", "comparison", "front_numbers", "levels_of"]

LEVELS = 5


def comparison(
    measured: Mapping[str, Sequence[Measured]],
    cfg: str | None,
    levels: Sequence[float] | None = None,
) -> dict[str, Any]:
    """points, the levels and fronts of an evaluation, and with what was compared, for JSON.

    Args:
        measured: points of every method by its name, in the order of the scales.
        cfg: the method that all are compared with; None: nothing is compared.
        levels: of confidence; None = levels_of CFG's front.
    """
    fronts = {name: Front(points) for name, points in measured.items() if len(points) > 1}
    own = fronts.get(cfg) if cfg is not None else None
    if levels is None:
        levels = levels_of(own) if own is not None else ()
    points = []
    for each in (each for own_points in measured.values() for each in own_points):
        points.append(each.row | ({"against_cfg": against_cfg(each, own)} if own else {}))
    return {
        "points": points,
        "compared_with": None if own is None else cfg,
        "levels": list(levels),
        "fronts": front_numbers(fronts, own, levels),
    }


def levels_of(cfg: Front) -> tuple[float, ...]:
    """Levels of confidence that spread over what is asked of guidance.

    From that of CFG's lowest FID (below it a larger scale is better in both) towards its surest
    point's, which other methods may not reach.
    """
    confidences, fids = cfg.confidence[:, 0], cfg.fid[:, 0]
    last = float(confidences.max())
    first = float(confidences[fids.argmin()])
    if first == last:
        first = float(confidences.min())
    found = torch.linspace(first, last, LEVELS + 1, dtype=torch.float64)[:-1].tolist()
    return tuple(dict.fromkeys(math.floor(100 * level + 1e-6) / 100 for level in found))


def front_numbers(
    fronts: Mapping[str, Front], cfg: Front | None, levels: Sequence[float]
) -> dict[str, list[dict[str, Any] | None]]:
    """method -> at each level what its front has (None: not reached).

    fid, fid_error, and the scale, nfe and backward passes there; against CFG's front, where both
    reach it, `cfg`, [difference, error] with a 95 % half-width, and CFG's scale.
    """
    return {
        name: [_at_level(front, cfg, level) for level in levels] for name, front in fronts.items()
    }


def _at_level(front: Front, cfg: Front | None, level: float) -> dict[str, Any] | None:
    fids = front.fid_at(level)
    if fids is None:
        return None
    found: dict[str, Any] = {"confidence": level, **_fid(fids)}
    found |= {key: front.read_at(level, key) for key in ("scale", "nfe", "backward")}
    theirs = None if cfg is None else cfg.fid_at(level)
    if cfg is not None and theirs is not None:
        found["cfg"] = _against(fids, theirs) | {"scale": cfg.read_at(level, "scale")}
    return found


def against_cfg(point: Measured, cfg: Front) -> dict[str, Any]:
    """A point against CFG: at equal confidence, equal agreement, at its effective scale, at equal
    scale.

    Each is None where CFG's points do not reach so far; else CFG's scale and FID there, and the
    point's FID minus that, [difference, error].
    """
    level = point.row["confidence"]
    found: dict[str, Any] = {"equal_confidence": None, "effective_scale": None, "equal_scale": None}
    theirs = cfg.fid_at(point.confidences)
    if theirs is not None:
        at = {"scale": cfg.read_at(level, "scale")}
        found["equal_confidence"] = at | _against(point.fids, theirs)
    found["equal_agreement"] = _at_agreement(point, cfg)
    scales = {"effective_scale": point.row["effective_scale"], "equal_scale": point.row["scale"]}
    for key, scale in scales.items():
        theirs = cfg.fid_at_scale(scale)
        if theirs is not None:
            found[key] = {"scale": scale} | _against(point.fids, theirs)
    return found


def _at_agreement(point: Measured, cfg: Front) -> dict[str, Any] | None:
    """As at equal confidence, with the share of samples that the judge gives their own label."""
    shares = [each.agreements for each in cfg.points]
    if point.agreements is None or any(share is None for share in shares):
        return None
    pairs = zip(cfg.points, shares, strict=True)
    front = Front([replace(each, confidences=share) for each, share in pairs if share is not None])
    theirs = front.fid_at(point.agreements)
    if theirs is None:
        return None
    scale = front.read_at(float(point.agreements[0]), "scale")
    return {"scale": scale} | _against(point.fids, theirs)


def _fid(fids: Tensor) -> dict[str, float]:
    return {"fid": float(fids[0]), "fid_error": difference(fids, torch.zeros_like(fids)).error}


def _against(ours: Tensor, theirs: Tensor) -> dict[str, Any]:
    apart = difference(ours, theirs)
    return {"fid": float(theirs[0]), "difference": apart.value, "error": apart.error}
