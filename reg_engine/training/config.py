"""The numbers of one training run."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import choice
from ..values import as_float, as_int, store

__all__ = ["PieceOver", "TrainConfig"]


class PieceOver(KeyboardInterrupt):
    """A run reached its deadline and is saved; the message says what is missing.

    Nobody is to catch it but who knows how to go on: to all others it is Ctrl-C.
    """


@dataclass(frozen=True)
class TrainConfig:
    """Settings that fix a run: the same config, task and data give the same weights.

    Args:
        steps: optimizer steps, >= 1.
        batch_size: images a step, >= 1.
        lr: peak learning rate; linear warm-up over `warmup` steps, then a cosine down to zero.
        warmup: steps of the warm-up.
        betas, weight_decay: of AdamW (decay acts on weight matrices, not on biases and norms).
        clip: largest gradient norm.
        ema_half_life: images after which an old weight counts half in the average; at the start it
            is at most `ema_ramp` of the images seen so far: the first weights are forgotten.
        ema_ramp: see ema_half_life.
        seed: of initial weights, data order, noise and label dropout.
        dtype: "float32" or "bfloat16" (autocast; weights, loss and average stay float32).
        start: digest of the weights that the run began with; empty = new ones.
        noise_mean: mean of ln(sigma) in the diffusion task (P_mean in Karras et al. 2022).

    Raises:
        InputError: a number out of its range.
    """

    steps: int
    batch_size: int = 128
    lr: float = 2e-3
    warmup: int = 400
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip: float = 1.0
    ema_half_life: float = 100_000.0
    ema_ramp: float = 0.05
    seed: int = 0
    dtype: str = "float32"
    start: str = ""
    noise_mean: float = -0.4

    def __post_init__(self) -> None:
        choice("dtype", self.dtype, ("float32", "bfloat16"))
        for name, least in {"steps": 1, "batch_size": 1, "warmup": 0, "seed": 0}.items():
            store(self, **{name: as_int(name, getattr(self, name), least)})
        for name in ("lr", "clip"):
            remedy, value = "Give a positive number", getattr(self, name)
            store(self, **{name: as_float(name, value, remedy, lambda v: 0 < v < math.inf)})
        for name in ("weight_decay", "ema_half_life", "ema_ramp"):
            remedy, value = "Give a number >= 0", getattr(self, name)
            store(self, **{name: as_float(name, value, remedy, lambda v: 0 <= v < math.inf)})

    def learning_rate(self, step: int) -> float:
        """Rate of step 0 <= step < steps: linear warm-up times cosine to zero."""
        rise = min(1.0, (step + 1) / (self.warmup + 1))
        return self.lr * rise * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def ema_decay(self, step: int) -> float:
        """Weight of the old average at `step` (0-based): 1/2 to the power batch / half-life."""
        half_life = min(self.ema_half_life, self.ema_ramp * (step + 1) * self.batch_size)
        return 0.5 ** (self.batch_size / half_life) if half_life > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for checkpoints and metadata."""
        return {**asdict(self), "betas": list(self.betas)}
