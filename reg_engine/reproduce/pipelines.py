"""Pictures of prompts, for the recipes of a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..guidance import Guidance
from .points import RecipePoint
from .sampled import Prompts

__all__ = ["Pipelines"]


class Pipelines:
    """The pictures of points by a pipeline of diffusers: its own scheduler, its own size.

    Args:
        pipe: the pipeline, or its folder.
        prompts: of picture 0, 1, ...
        device, dtype: where and in what it computes; None = as it is.
    """

    def __init__(
        self,
        pipe: Any,
        prompts: Sequence[str],
        device: str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        from ..integrations.diffusers import load_pipeline

        self.pipe = load_pipeline(pipe) if isinstance(pipe, str) else pipe
        self.pipe.set_progress_bar_config(disable=True)
        given = {"device": device, "dtype": dtype}
        if moved := {key: value for key, value in given.items() if value is not None}:
            self.pipe.to(**moved)
        self.prompts = prompts

    def __call__(self, point: RecipePoint) -> Prompts:
        """The pictures of a point."""
        rectify = None if point.rectify == "none" else point.rectify
        guidance = Guidance(point.recipe.weight(point.method, point.scale), rectify=rectify)
        if point.scale == 1:  # whatever the method: one guidance, one key
            guidance = Guidance(1.0, rectify=None)
        choices = {"guidance": guidance, "steps": point.steps}
        return Prompts(point.name, self.pipe, self.prompts, choices)
