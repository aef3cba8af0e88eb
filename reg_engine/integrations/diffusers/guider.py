"""REG as a guider of diffusers' modular pipelines, beside their own (CFG, APG, ...).

A guider is told step and time, and stands around each call of the network; what the calls mean it
learns as the hook of a pipeline does: the network answers so that the formula of CFG is REG.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from diffusers import ClassifierFreeGuidance
from diffusers.configuration_utils import register_to_config
from torch import nn

from ...errors import InputError
from ...loop.stats import Stats
from ...rectifiers import follows_w
from .hook import Hook, cost_of
from .levels import levels_of

__all__ = ["RectifiedGradientGuidance"]


_CFG: Any = ClassifierFreeGuidance  # of a type that diffusers does not tell


class RectifiedGradientGuidance(_CFG):
    """c + (s - 1) K (c - u): rectified gradient guidance (arXiv 2501.18865) for modular pipelines.

    `RectifiedGradientGuidance.of(pipe.scheduler, guidance_scale=5.0)`, then
    `pipe.update_components(guider=...)`; saved and loaded as any guider.

    Args:
        guidance_scale: s >= 1, 1 = none; with use_original_formulation w >= 0, 0 = none.
        rectify: name of an estimator of K (c - u), or "auto".
        scheduler: config of the pipeline's scheduler, with its `_class_name`: the chain or flow
            that the network was trained on.
        guidance_rescale, use_original_formulation, start, stop, enabled: of ClassifierFreeGuidance.

    Raises:
        InputError: a scheduler of no known alpha and sigma; an estimator that depends on w.
    """

    @register_to_config
    def __init__(
        self,
        guidance_scale: float = 7.5,
        rectify: str = "auto",
        scheduler: Mapping[str, Any] | None = None,
        guidance_rescale: float = 0.0,
        use_original_formulation: bool = False,
        start: float = 0.0,
        stop: float = 1.0,
        enabled: bool = True,
    ) -> None:
        super().__init__(
            guidance_scale, guidance_rescale, use_original_formulation, start, stop, enabled
        )
        if follows_w(rectify):
            problem = f"{rectify!r} depends on w, which guiders of diffusers do not tell"
            raise InputError("rectify", problem, "Take 'auto', 'vjp', 'fd_batched', ...")
        self._rectify, self._scheduler = rectify, _built(scheduler)
        self._hooks: dict[nn.Module, Hook] = {}

    @classmethod
    def of(cls, scheduler: Any, **choices: Any) -> RectifiedGradientGuidance:
        """For pipelines with this scheduler; `choices` as of the class."""
        config = {**scheduler.config, "_class_name": type(scheduler).__name__}
        return cls(scheduler=config, **choices)

    @property
    def stats(self) -> Stats | None:
        """What the last way cost (evaluations, estimator); None: nothing was guided yet."""
        return cost_of(self._hooks.values())

    def set_state(self, step: int, num_inference_steps: int, timestep: Any) -> None:
        super().set_state(step, num_inference_steps, timestep)
        if step == 0 or len(self._scheduler.timesteps) != num_inference_steps:  # a new way
            self._scheduler.timesteps = torch.full((num_inference_steps,), math.inf)
        self._scheduler.timesteps[step] = float(torch.as_tensor(timestep).flatten()[0])

    def prepare_models(self, denoiser: nn.Module) -> None:
        super().prepare_models(denoiser)
        if self._is_cfg_enabled():
            if denoiser not in self._hooks:
                choices = {"scale": 2.0, "rectify": self._rectify}
                owner = SimpleNamespace(scheduler=self._scheduler)
                self._hooks[denoiser] = Hook(owner, denoiser, choices, own=False)
            self._hooks[denoiser].place()

    def cleanup_models(self, denoiser: nn.Module) -> None:
        if denoiser in self._hooks:
            self._hooks[denoiser].lift()
        super().cleanup_models(denoiser)


def _built(config: Mapping[str, Any] | None) -> Any:
    """A scheduler of this config, whose times will be those that the guider is told."""
    name = (config or {}).get("_class_name", "")
    kind = getattr(diffusers, name, None) if name.endswith("Scheduler") else None
    if kind is None:
        raise InputError(
            "scheduler",
            f"is {name or 'not given'!r}, which is no scheduler of diffusers",
            "Make the guider with RectifiedGradientGuidance.of(pipe.scheduler, ...)",
        )
    scheduler = kind.from_config(dict(config or {}))
    scheduler.sigmas = None
    levels_of(scheduler)
    return scheduler
