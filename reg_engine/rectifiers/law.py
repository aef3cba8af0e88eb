"""How the Jacobian term goes along the way, and what an estimator keeps of it from row to row.

What a step needs of K is mostly one number, the quotient r = <K p, p> / <p, p> along the guidance
direction p. Next to one Gaussian of variance v it is v / (v + level^2), level = sigma/alpha: the
odds r / (1 - r) go with level^-2, and cond - ref goes with 1 - r (design of this engine).
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .. import ops

__all__ = ["Known", "carried", "quotient_of"]

# A quotient below is lost in rounding next to pure noise; it is taken for this one, so that it is
# measured again before it matters.
LEAST = 5e-4


def carried(quotient: Tensor, level: Tensor, now: float | Tensor) -> Tensor:
    """A quotient (B,) measured at a noise level, at the level `now`: odds go with level^-2. One
    below 0, or of 1 or more, which no Gaussian has, stays as it is."""
    gain = (level / now).square()
    r = quotient.clamp(0, 1)
    gaussian = (quotient >= 0) & (quotient < 1)
    return torch.where(gaussian, r * gain / (1 - r + r * gain), quotient)


def quotient_of(p: Tensor, product: Tensor, backend: str | None) -> Tensor:
    """<K p, p> / <p, p> of each sample, (B,): LEAST where it is about 0; a negative one stays."""
    gram = ops.reduce(p, product, backend=backend)
    size = gram[:, 1, 1]
    r = torch.where(size > 0, gram[:, 1, 2] / size, 0)
    return torch.where(r < -LEAST, r, r.clamp_min(LEAST)).to(p.dtype)


@dataclass
class Known:
    """What was last measured of each sample, and at which noise level.

    Args:
        p, product: a direction and K p, (B, *sample_shape).
        quotient: r along it, (B,), at the noise level `probed`, (B,).
        other: the reference's own quotient there, where it is measured; else the same.
        raw: cond - ref, (B, *sample_shape), at the noise level `asked`, (B,).
        rate: norm of what a carried `raw` was last seen to lose for each e-fold of the level, (B,);
            carried as `raw` is.
        largest, push: norm of the largest cond - ref so far, and the largest |w| times it, (B,).
    """

    p: Tensor
    product: Tensor
    quotient: Tensor
    other: Tensor
    probed: Tensor
    raw: Tensor
    asked: Tensor
    rate: Tensor
    largest: Tensor
    push: Tensor

    @classmethod
    def recall(cls, memory: MutableMapping[str, Tensor]) -> Known | None:
        """What a batch's memory holds, if anything."""
        names = [field.name for field in fields(cls)]
        if any(f"known {name}" not in memory for name in names):
            return None
        return cls(*(memory[f"known {name}"] for name in names))

    def keep(self, memory: MutableMapping[str, Tensor]) -> None:
        """Leave it in a batch's memory."""
        for field in fields(self):
            memory[f"known {field.name}"] = getattr(self, field.name)

    def put(self, rows: Tensor, **values: Tensor | float) -> None:
        """New values of some samples."""
        for name, value in values.items():
            old = getattr(self, name)
            new = value if isinstance(value, Tensor) else torch.full_like(old[rows], value)
            setattr(self, name, old.index_copy(0, rows, new.to(old.dtype)))

    def at(self, level: float) -> tuple[Tensor, Tensor]:
        """(quotient, other) carried to a noise level."""
        pair = (carried(r, self.probed, level) for r in (self.quotient, self.other))
        return next(pair), next(pair)

    def shrunk(self, level: float) -> Tensor:
        """The factor on `raw` at a noise level, (B,)."""
        now, then = (carried(self.quotient, self.probed, at) for at in (level, self.asked))
        factor = (1 - now) / (1 - then)
        return torch.where(factor.isfinite() & (factor > 0), factor, 1)

    def gained(self, level: float) -> Tensor:
        """The factor on `product` at a noise level, (B,)."""
        return carried(self.quotient, self.probed, level) / self.quotient
