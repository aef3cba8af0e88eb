"""Samples as a source of images: image k is a function of seed k, made when it is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..engine import Engine
from ..loop.stats import Stats
from ..pictures.images import to_uint8
from ..resume import engine_key
from ..scoring.source import Part
from ..storage.digest import digest

__all__ = ["Classes", "Prompts"]


class _Sampled:
    """Reads batches in order; `stats` are what those cost that were made here."""

    in_order = True

    def __init__(self, name: str, count: int) -> None:
        self.name, self.count, self.stats = name, count, Stats()

    def __len__(self) -> int:
        return self.count

    def close(self) -> None:
        """There is nothing to let go of."""


class Classes(_Sampled):
    """Pictures of classes.

    Args:
        name: what people call it.
        engine: whose samples they are.
        labels: (N,) of image 0, 1, ...; image k has seed k.
        decoder: makes pictures in [-1, 1] of samples; None: they are.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        labels: Tensor,
        decoder: Callable[[Tensor], Tensor] | None,
    ) -> None:
        super().__init__(name, len(labels))
        self.engine, self.labels, self.decoder = engine, labels, decoder

    def read(self, numbers: range) -> Part:
        """The pictures with these numbers, sampled as one batch."""
        out = self.engine.sample(self.labels[list(numbers)], list(numbers))
        self.stats.merge(out.stats.as_dict())
        pictures = out.samples if self.decoder is None else self.decoder(out.samples)
        return Part(to_uint8(pictures).permute(0, 3, 1, 2).contiguous(), list(numbers))

    def fingerprint(self) -> str:
        """Of networks, numbers of the sampler and labels."""
        return digest(engine_key(self.engine), self.labels, self.decoder)


class Prompts(_Sampled):
    """Pictures of prompts, by a pipeline of diffusers on the engine.

    Args:
        name: what people call it.
        pipe: the pipeline.
        prompts: of picture 0, 1, ...; picture k has seed k.
        choices: arguments of integrations.diffusers.sample.
    """

    def __init__(
        self, name: str, pipe: Any, prompts: Sequence[str], choices: dict[str, Any]
    ) -> None:
        super().__init__(name, len(prompts))
        self.pipe, self.prompts, self.choices = pipe, list(prompts), choices

    def read(self, numbers: range) -> Part:
        """The pictures with these numbers, sampled as one batch."""
        from ..integrations.diffusers import sample

        own = [self.prompts[number] for number in numbers]
        found = sample(self.pipe, own, seeds=numbers, progress=False, **self.choices)
        self.stats.merge(found.stats.as_dict())
        return Part(found.images.permute(0, 3, 1, 2).contiguous(), list(numbers))

    def fingerprint(self) -> str:
        """Of networks, configurations, prompts and choices."""
        parts = self.pipe.components.values()
        modules = [part.state_dict() for part in parts if isinstance(part, torch.nn.Module)]
        configs = [dict(part.config) for part in parts if hasattr(part, "set_timesteps")]
        return digest(type(self.pipe).__name__, modules, configs, self.prompts, self.choices)
