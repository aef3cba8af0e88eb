"""REG in a pipeline: `with reg(pipe): pipe(...)`, or `enable(pipe)` and `disable(pipe)`.

While it is on a call of the pipeline's network is the hook's, and that alone; the hook calls the
network with its own call back in its place, so that whatever else was put around it (offloading,
torch.compile, LoRA) is asked as before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from ...errors import InputError
from ...guidance import Guidance
from ...loop.stats import Stats
from ...plan import Plan
from ...rectifiers import Rectifier, follows_w
from .hook import PLACE, Hook, cost_of
from .levels import levels_of

__all__ = ["Rectified", "disable", "enable", "networks_of", "reg"]

NETWORKS = ("unet", "transformer", "transformer_2")  # what a pipeline calls the one that denoises
MINUS = ("HiDream", "Lumina", "NucleusMoE", "ZImage")  # pipelines that turn their network's sign

_ENABLED: WeakKeyDictionary[Any, Rectified] = WeakKeyDictionary()


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

    def on(self) -> None:
        """Put the hooks in place."""
        for hook in self.hooks:
            hook.place()

    def off(self) -> None:
        """Take them away."""
        for hook in self.hooks:
            hook.lift()


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


def enable(
    pipe: Any,
    *,
    rectify: str | Rectifier | None = "auto",
    scale: Any = None,
    guidance: Guidance | None = None,
    plan: Plan | None = None,
    memory_budget: float | None = None,
    backend: str | None = None,
    check: bool = True,
) -> Rectified:
    """Let a diffusers pipeline sample with REG until `disable(pipe)`: its own call, scheduler,
    LoRA, ControlNet, adapters and callbacks.

    Args:
        pipe: a diffusers pipeline that asks its `unet` or `transformer` for two predictions a step,
            with and without the condition: in one batch, or one after the other. Its scheduler may
            be any of a VP chain or a flow.
        rectify: as for Engine; None with neither scale nor guidance leaves the pipeline as it is.
            What follows w (`blend`, `lazy_blend`, `characteristic`) needs `scale`.
        scale, guidance: None = the pipeline's own scale, w = guidance_scale - 1. Else these count
            and that only turns guidance on; a weight that follows the whole way (Linear) is
            refused, `Damped` and `Interval` are not. guidance_rescale then does nothing.
        plan, memory_budget, backend, check: as for Guide.

    Returns:
        A handle with `stats`.

    Raises:
        InputError: no pipeline, or one without a network or a scheduler that can be read, or whose
            network predicts minus the flow; enabled already, or another with the same network;
            rectify follows w and there is no scale. While the pipeline runs: it asks for three
            predictions, or takes variances that the network learned.
    """
    if pipe in _ENABLED:
        raise InputError("pipe", "is enabled already", "Call disable(pipe) first")
    networks = networks_of(pipe)
    if any(isinstance(module.__dict__.get(PLACE), Hook) for module in networks):
        problem = "has its network from another pipeline that is enabled"
        raise InputError("pipe", problem, "Call disable(the other) first")
    levels_of(pipe.scheduler)
    own = scale is not None or guidance is not None
    if not own and follows_w(rectify):
        problem = f"{rectify!r} depends on w, which the pipeline keeps to itself"
        raise InputError("rectify", problem, "Give scale= as well")
    if guidance is None:
        scale = 2.0 if scale is None else scale
    choices = {"scale": scale, "guidance": guidance, "plan": plan, "backend": backend}
    choices |= {"memory_budget": memory_budget, "check": check}
    if guidance is None:
        choices["rectify"] = rectify
    hooks = [Hook(pipe, network, choices, own) for network in networks]
    rectified = Rectified(hooks if own or rectify is not None else [])
    rectified.on()
    _ENABLED[pipe] = rectified
    return rectified


def disable(pipe: Any) -> None:
    """Undo `enable(pipe)`; a pipeline that is not enabled stays as it is."""
    rectified = _ENABLED.pop(pipe, None)
    if rectified is not None:
        rectified.off()


@contextmanager
def reg(pipe: Any, **choices: Any) -> Iterator[Rectified]:
    """`enable(pipe, **choices)` for a block; the pipeline is itself again after it, whatever
    happens inside."""
    rectified = enable(pipe, **choices)
    try:
        yield rectified
    finally:
        disable(pipe)
