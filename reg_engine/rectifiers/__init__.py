"""Rectifiers: K applied to the guidance direction, K = alpha_t d denoised_cond / d x_t, by eight
estimators; and two that look further than K delta."""

from __future__ import annotations

from ..errors import InputError, choice
from .base import Rectifier, name_of
from .blend import Blend
from .characteristic import Characteristic
from .difference import FD, DiagonalBatched, FDBatched
from .forward import JVP, DiagonalJVP
from .lazy import Alternate, Lazy, LazyBlend
from .reverse import VJP, Diagonal, Paper

__all__ = [
    "FD",
    "JVP",
    "K_DELTA",
    "PRODUCTS",
    "RECTIFIERS",
    "VJP",
    "Alternate",
    "Blend",
    "Characteristic",
    "Diagonal",
    "DiagonalBatched",
    "DiagonalJVP",
    "FDBatched",
    "Lazy",
    "LazyBlend",
    "Paper",
    "Rectifier",
    "make",
    "name_of",
    "as_rectify",
    "follows_w",
    "looks",
]

# What estimates K delta, K^T delta or diag(K) delta at the row itself.
PRODUCTS: dict[str, type] = {
    "paper": Paper,
    "vjp": VJP,
    "jvp": JVP,
    "fd": FD,
    "fd_batched": FDBatched,
    "diagonal": Diagonal,
    "diagonal_batched": DiagonalBatched,
    "diagonal_jvp": DiagonalJVP,
}
# What a damping that was calibrated on top of K delta may stand beside.
K_DELTA = ("vjp", "jvp", "fd", "fd_batched", "lazy", "alternate")
RECTIFIERS: dict[str, type] = {
    **PRODUCTS,
    "lazy": Lazy,
    "alternate": Alternate,
    "lazy_blend": LazyBlend,
    "blend": Blend,
    "characteristic": Characteristic,
}


def as_rectify(rectify: str | Rectifier | None) -> str | Rectifier | None:
    """`rectify` if it can be used, else InputError."""
    if rectify is None:
        return None
    if isinstance(rectify, str):
        return choice("rectify", rectify, (*RECTIFIERS, "auto"))
    if callable(rectify) and not isinstance(rectify, type):
        return rectify
    raise InputError(
        "rectify",
        f"is {rectify!r}",
        f"Give None, 'auto', one of {', '.join(RECTIFIERS)}, or a Rectifier",
    )


def make(name: str, memory_budget: float | None = None) -> Rectifier:
    """The estimator `name` with its defaults; `memory_budget` (bytes) goes to those that record."""
    kind = RECTIFIERS[choice("rectify", name, RECTIFIERS)]
    if memory_budget is not None and name in ("paper", "vjp", "diagonal"):
        return kind(memory_budget=memory_budget)
    return kind()


def looks(rectify: str | Rectifier | None) -> bool:
    """Whether it lets the host look at the samples of every row, so that no graph is captured."""
    kind = RECTIFIERS.get(rectify) if isinstance(rectify, str) else rectify
    return bool(getattr(kind, "looks", False))


def follows_w(rectify: str | Rectifier | None) -> bool:
    """Whether what it gives depends on the weight, so that it serves one term, and one weight for
    all samples."""
    kind = RECTIFIERS.get(rectify) if isinstance(rectify, str) else rectify
    return bool(getattr(kind, "follows_w", False))
