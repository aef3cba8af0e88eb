"""REG in diffusers' pipelines: `with reg(pipe): pipe(...)`, `sample(pipe, prompts)`, a guider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .hook import Hook
from .loading import load_pipeline
from .sampling import Pictures, sample
from .switch import disable, enable, reg

if TYPE_CHECKING:
    from .guider import RectifiedGradientGuidance

__all__ = [
    "Hook",
    "Pictures",
    "RectifiedGradientGuidance",
    "disable",
    "enable",
    "load_pipeline",
    "reg",
    "sample",
]


def __getattr__(name: str) -> Any:
    if name != "RectifiedGradientGuidance":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .guider import RectifiedGradientGuidance  # it is a class of diffusers

    return RectifiedGradientGuidance
