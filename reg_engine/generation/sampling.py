"""Images of seeds: a batch of labels or prompts and seeds becomes 8-bit pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ..engine import Engine
from ..loop.stats import Stats
from ..pictures.images import to_uint8
from ..resume import engine_key
from ..storage.digest import digest

__all__ = ["OfLabels", "OfPrompts", "Sampler"]


class Sampler(Protocol):
    """Makes the pictures of a batch, each a function of its label and its seed.

    Attributes:
        stats: what the calls cost so far.
    """

    stats: Stats

    def __call__(self, labels: Sequence[Any], seeds: Sequence[int]) -> Tensor:
        """Pictures (N, H, W, 1 or 3) uint8 on the CPU.

        Raises:
            NumericalError: NaN or Inf in one of them.
        """
        ...

    def settle(self, label: Any, seed: int) -> None:
        """Make the choices that the first batch decides, on this one: the same in every process."""

    def fingerprint(self) -> str:
        """A digest of all that pictures depend on beside labels and seeds."""
        ...


class OfLabels:
    """Pictures of classes.

    Args:
        engine: whose samples they are.
        decoder: makes pictures in [-1, 1] of samples; None: they are.
    """

    def __init__(self, engine: Engine, decoder: Callable[[Tensor], Tensor] | None = None) -> None:
        self.engine, self.decoder, self.stats = engine, decoder, Stats()

    def __call__(self, labels: Sequence[int] | Tensor, seeds: Sequence[int]) -> Tensor:
        """See Sampler."""
        out = self.engine.sample(torch.as_tensor(labels), seeds)
        self.stats.merge(out.stats.as_dict())
        pictures = out.samples if self.decoder is None else self.decoder(out.samples)
        return to_uint8(pictures)

    def settle(self, label: int, seed: int) -> None:
        """See Sampler; the estimator and its precision, before the first row."""
        for _ in self.engine.steps(torch.tensor([label]), [seed]):
            break

    def fingerprint(self) -> str:
        """See Sampler; of networks and all numbers of the engine."""
        return digest(engine_key(self.engine), self.decoder)


class OfPrompts:
    """Pictures of prompts, by a pipeline of diffusers on the engine.

    Args:
        pipe: the pipeline.
        choices: arguments of integrations.diffusers.sample.
    """

    def __init__(self, pipe: Any, choices: dict[str, Any]) -> None:
        self.pipe, self.choices, self.stats = pipe, choices, Stats()

    def __call__(self, labels: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """See Sampler."""
        from ..integrations.diffusers import sample

        found = sample(self.pipe, list(labels), seeds=seeds, progress=False, **self.choices)
        self.stats.merge(found.stats.as_dict())
        return found.images.cpu()

    def settle(self, label: str, seed: int) -> None:
        """Every batch makes its own choices: there is nothing to do."""

    def fingerprint(self) -> str:
        """See Sampler; of networks, configurations and choices."""
        parts = self.pipe.components.values()
        modules = [part.state_dict() for part in parts if isinstance(part, torch.nn.Module)]
        configs = [dict(part.config) for part in parts if hasattr(part, "set_timesteps")]
        return digest(type(self.pipe).__name__, modules, configs, self.choices)
