"""Samples as a source of images: image k is a function of seed k, made when it is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ..engine import Engine
from ..generation.sampling import OfLabels, OfPrompts
from ..loop.stats import Stats
from ..scoring.source import Part
from ..storage.digest import digest

__all__ = ["Classes", "Prompts"]


class _Sampled:
    """Reads batches in order; `stats` are what those cost that were made here."""

    in_order = True

    def __init__(
        self, name: str, sampler: OfLabels | OfPrompts, labels: Tensor | list[str]
    ) -> None:
        self.name, self.sampler, self.labels = name, sampler, labels

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def stats(self) -> Stats:
        """What was spent on them."""
        return self.sampler.stats

    def read(self, numbers: range) -> Part:
        """The pictures with these numbers, sampled as one batch."""
        own = self.labels[numbers.start : numbers.stop]
        pictures = self.sampler(own, list(numbers))  # type: ignore[arg-type]
        return Part(pictures.permute(0, 3, 1, 2).contiguous(), list(numbers))

    def fingerprint(self) -> str:
        """Of what the sampler depends on, and labels or prompts."""
        return digest(self.sampler.fingerprint(), self.labels)

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
        super().__init__(name, OfLabels(engine, decoder), labels)


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
        self.prompts = list(prompts)
        super().__init__(name, OfPrompts(pipe, choices), self.prompts)
