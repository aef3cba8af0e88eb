"""Checks of what a caller gives to a mixture."""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
from torch import Tensor

from ..errors import InputError
from ..values import as_float

__all__ = [
    "Labels",
    "check_level",
    "check_points",
    "check_weight",
    "component_labels",
    "component_weights",
    "eigen",
    "label_rows",
]

Labels: TypeAlias = int | Tensor | None


def check_points(x: Tensor, dim: int) -> None:
    if not isinstance(x, Tensor) or x.dim() != 2 or x.shape[1] != dim:
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise InputError("x_t", f"has shape {got}", f"Give a tensor (B, {dim})")
    if x.dtype not in (torch.float32, torch.float64):
        raise InputError("x_t", f"has dtype {x.dtype}", "Give float32 or float64")


def check_level(alpha: float | Tensor, sigma: float | Tensor) -> None:
    a, s = (torch.as_tensor(v, dtype=torch.float64).detach() for v in (alpha, sigma))
    for name, value in (("alpha", a), ("sigma", s)):
        if not bool((value.isfinite() & (value >= 0)).all()):
            raise InputError(name, f"is {value.tolist()}", "Give finite numbers >= 0")
    if not bool((a + s > 0).all()):
        raise InputError("sigma", "is 0 where alpha is 0", "Give a level with alpha or sigma > 0")


def check_weight(w: float) -> float:
    remedy = "Give a finite number >= 0 (w = scale - 1)"
    return as_float("w", w, remedy, lambda v: 0 <= v < math.inf)


def label_rows(y: Labels, count: int, num_classes: int, device: torch.device) -> Tensor:
    """Labels (count,) in [0, num_classes]; None and num_classes are the null label."""
    rows = torch.as_tensor(num_classes if y is None else y)
    if rows.is_floating_point() or rows.is_complex() or rows.dtype == torch.bool:
        raise InputError("y", f"has dtype {rows.dtype}", "Give integer labels")
    if rows.dim() and rows.shape != (count,):
        raise InputError("y", f"has shape {tuple(rows.shape)}", f"Give one label, or ({count},)")
    if not bool(((rows >= 0) & (rows <= num_classes)).all()):
        raise InputError(
            "y",
            f"{rows.unique().tolist()[:5]} are not all labels",
            f"Use 0 to {num_classes - 1}, or {num_classes} for the unconditional reference",
        )
    return rows.to(device, torch.long).expand(count)


def component_weights(weights: Tensor | None, count: int) -> Tensor:
    """Weights (count,), positive, summing to 1."""
    if weights is None:
        return torch.full((count,), 1 / count, dtype=torch.float64)
    weights = torch.as_tensor(weights, dtype=torch.float64)
    if weights.shape != (count,):
        raise InputError("weights", f"has shape {tuple(weights.shape)}", f"Give ({count},)")
    if not bool((weights.isfinite() & (weights > 0)).all()):
        raise InputError("weights", f"is {weights.tolist()}", "Give positive finite weights")
    return weights / weights.sum()


def component_labels(labels: Tensor | None, count: int) -> Tensor:
    """Labels (count,), every class from 0 to the largest with a component."""
    if labels is None:
        return torch.zeros(count, dtype=torch.long)
    labels = torch.as_tensor(labels)
    if labels.shape != (count,) or labels.dtype not in (torch.int32, torch.int64):
        raise InputError(
            "labels",
            f"has shape {tuple(labels.shape)} and dtype {labels.dtype}",
            f"Give integers ({count},)",
        )
    found = labels.unique().tolist()
    if found != list(range(len(found))):
        raise InputError("labels", f"holds the classes {found}", "Use 0, 1, ... without gaps")
    return labels.long()


def eigen(covariance: float | Tensor, count: int, dim: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues (count, dim) and eigenvectors (count, dim, dim), in columns."""
    value = torch.as_tensor(covariance, dtype=torch.float64)
    if value.shape not in ((), (count,), (count, dim, dim)):
        raise InputError(
            "covariance",
            f"has shape {tuple(value.shape)}",
            f"Give one deviation, deviations ({count},), or covariances {(count, dim, dim)}",
        )
    if not bool(value.isfinite().all()):
        raise InputError("covariance", "holds NaN or Inf", "Give finite values")
    if value.dim() == 3:
        if not torch.allclose(value, value.mT, rtol=1e-9, atol=0):
            raise InputError("covariance", "is not symmetric", "Give symmetric matrices")
        variances, basis = torch.linalg.eigh(value)
    else:
        if not bool((value > 0).all()):
            raise InputError("covariance", f"is {value.tolist()}", "Give positive deviations")
        variances = value.square().expand(count)[:, None].expand(count, dim).clone()
        basis = torch.eye(dim, dtype=torch.float64).expand(count, dim, dim).clone()
    if not bool((variances > 1e-14 * variances.amax(-1, keepdim=True)).all()):
        raise InputError(
            "covariance", "is not positive definite", "Give covariances with positive eigenvalues"
        )
    return variances, basis
