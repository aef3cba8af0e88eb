"""Forward mode through PyTorch's forward AD, where dual.py sees to ops without a tangent rule."""

from __future__ import annotations

from dataclasses import dataclass

import torch.autograd.forward_ad as fwAD
from torch import Tensor

from ..errors import EstimatorError
from ..networks.point import Direction, Point
from ..values import as_bool, store
from .dual import dual_pass, out_of_memory
from .lag import lag_of, rectified_from_lag

__all__ = ["JVP"]


@dataclass(frozen=True)
class JVP:
    """`jvp`: K delta by one dual pass.

    Args:
        lagged: True takes the product along the previous delta together with cond in one dual
            pass (2 evaluations) and corrects it (rectifiers/lag.py); False takes it along delta
            itself, after cond and ref are known (a second pass).
    """

    lagged: bool = True
    name = "jvp"

    def __post_init__(self) -> None:
        store(self, lagged=as_bool("lagged", self.lagged))

    def __call__(self, point: Point, direction: Direction) -> tuple[Tensor, Tensor, Tensor]:
        lag = lag_of(point) if self.lagged else None
        if lag is None:
            ref, cond = point.stack(point.x)
            delta = direction(point, cond, ref)
            return cond, product(point, delta)[1], delta
        cond, k_lag = product(point, lag)
        delta = direction(point, cond, point.ref(cond))
        rectified = rectified_from_lag(point, delta, lag, k_lag, lambda d: product(point, d)[1])
        return cond, rectified, delta


def product(point: Point, tangent: Tensor) -> tuple[Tensor, Tensor]:
    """(cond, K tangent) from one dual pass, counted as two evaluations.

    Raises:
        EstimatorError: an op of the network has no forward-mode rule, or drops the tangent.
        torch.OutOfMemoryError: as PyTorch raised it.
    """
    try:
        with dual_pass(point.denoiser.net):
            x = fwAD.make_dual(point.x.clone(), tangent.clone())
            cond = fwAD.unpack_dual(point.cond_at(x, cost=2))
    except RuntimeError as error:
        if isinstance(error, EstimatorError) or out_of_memory(error):
            raise
        raise EstimatorError(
            f"'jvp' cannot serve this network: {str(error).splitlines()[0]} Use rectify='vjp', "
            "'fd_batched' or 'fd'."
        ) from error
    assert cond.tangent is not None  # Denoiser raised otherwise
    return cond.primal, point.alpha * cond.tangent
