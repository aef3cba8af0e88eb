"""A learned variance: what a network says beside its prediction, and the noise that follows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import InputError

__all__ = ["Heard", "halves"]


def halves(output: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """(prediction, learned variance) of what a network returned for x, without a derivative of the
    second.

    Raises:
        InputError: it has not twice the channels of x.
    """
    wanted = (len(x), 2 * x.shape[1], *x.shape[2:])
    if not isinstance(output, Tensor) or tuple(output.shape) != wanted:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(
            "learned_variance",
            f"needs {wanted} of the network, which returned {got}",
            "Leave it out for a network that returns the shape of its input",
        )
    prediction, variance = output.chunk(2, 1)
    return prediction, variance.detach()


class Heard:
    """The learned variance of cond at one row's x_t, the first that is said."""

    def __init__(self) -> None:
        self.variance: Tensor | None = None

    def keep(self, beside: Tensor | None, block: int | Tensor | None, count: int) -> None:
        """Keep what was said of cond's rows at x_t, if it is the first.

        Args:
            beside: what a network said beside its predictions; None: nothing.
            block: which rows are cond's at x_t: how many times `count` rows go before, or their
                numbers; None: none.
        """
        if beside is None or block is None or self.variance is not None:
            return
        whole = isinstance(block, int)
        self.variance = beside[block * count :][:count] if whole else beside[block]

    def gain(self, spread: Tensor) -> Tensor:
        """What the row's noise is multiplied by, (B, *sample_shape): with v in [-1, 1] as it was
        said, exp(spread (v + 1) / 2) (Nichol & Dhariwal 2021, Eq. 15, of deviations).

        Args:
            spread: the logarithm of the largest deviation over the smallest, one number.
        """
        assert self.variance is not None  # a checked denoiser says it
        return torch.exp((self.variance.to(spread.dtype) + 1) * (spread / 2))
