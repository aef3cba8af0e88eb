"""What a rectifier is: it evaluates the networks at a point and returns K applied to the
direction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from ..networks.point import Direction, Point

__all__ = ["Rectifier", "name_of"]


class Rectifier(Protocol):
    """An estimator of the rectified direction, K = alpha_t d denoised_cond / d x_t.

    It owns the order of the evaluations: reverse mode records the conditional one alone,
    `fd_batched` puts all three into one batch.
    """

    @property
    def name(self) -> str:
        """The estimator's name, for `out.stats`."""
        ...

    def __call__(self, point: Point, direction: Direction) -> tuple[Tensor, Tensor, Tensor]:
        """Return (cond, rectified, delta), each (B, *sample_shape), in denoised space."""
        ...


def name_of(rectifier: Callable[..., object]) -> str:
    """What a rectifier is called: its `name`, or that of the function or class."""
    kind = getattr(rectifier, "__name__", type(rectifier).__name__)
    return str(getattr(rectifier, "name", kind))
