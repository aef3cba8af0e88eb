"""What is on in a pipeline: its hooks, and which pipelines have some."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from ...errors import InputError
from ...loop.stats import Stats
from .hook import Hook, cost_of

__all__ = ["ENABLED", "Rectified", "networks_of"]

NETWORKS = ("unet", "transformer", "transformer_2")  # what a pipeline calls the one that denoises
MINUS = ("HiDream", "Lumina", "NucleusMoE", "ZImage")  # pipelines that turn their network's sign


class Rectified:
    """A pipeline whose networks answer with REG.

    Attributes:
        hooks: of its networks; none where the pipeline is as it was.
    """

    def __init__(self, hooks: list[Hook]) -> None:
        self.hooks = hooks

    @property
    def stats(self) -> Stats | None:
        """What the pipeline's last way cost (evaluations, estimator, ...), over its networks;
        None: nothing was guided."""
        return cost_of(self.hooks)

    @property
    def networks(self) -> list[nn.Module]:
        """Those that must not be enabled twice."""
        return [hook.module for hook in self.hooks]

    def on(self) -> None:
        """Put the hooks in place."""
        for hook in self.hooks:
            hook.place()

    def off(self) -> None:
        """Take them away."""
        for hook in self.hooks:
            hook.lift()


ENABLED: WeakKeyDictionary[Any, Rectified] = WeakKeyDictionary()  # by pipeline


def networks_of(pipe: Any) -> list[nn.Module]:
    """Those of a pipeline that denoise.

    Raises:
        InputError: there is none, or no scheduler; one predicts minus the flow.
    """
    modules = [getattr(pipe, name, None) for name in NETWORKS]
    networks = [module for module in modules if isinstance(module, nn.Module)]
    if not networks or not hasattr(pipe, "scheduler"):
        raise InputError(
            "pipe",
            f"is a {type(pipe).__name__} without a network that denoises, or without a scheduler",
            "Give a diffusers pipeline with a unet or a transformer",
        )
    if type(pipe).__name__.startswith(MINUS):
        problem = f"is a {type(pipe).__name__}, whose network predicts minus the flow"
        raise InputError("pipe", problem, "Sample with reg_engine.sample and a Denoiser of it")
    return networks
