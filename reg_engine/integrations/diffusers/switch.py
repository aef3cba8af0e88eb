"""REG in a pipeline: `with reg(pipe): pipe(...)`, or `enable(pipe)` and `disable(pipe)`.

While it is on a call of the pipeline's network is the hook's, and that alone; the hook calls the
network with its own call back in its place, so that whatever else was put around it (offloading,
torch.compile, LoRA) is asked as before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...checks import no_choices
from ...errors import InputError
from ...guidance import Guidance
from ...networks.adapter import Adapter, adapter_of
from ...plan import Plan
from ...rectifiers import Rectifier, follows_w
from .enabled import ENABLED, Rectified, networks_of
from .hook import Hook
from .levels import levels_of
from .student import Student

__all__ = ["disable", "enable", "reg"]


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
    adapter: str | os.PathLike[str] | Adapter | None = None,
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
        adapter: a file of a distillation, or an Adapter: guidance comes from it, with one
            evaluation a step. scale is a number, or the pipeline's own; nothing else goes with it.

    Returns:
        A handle with `stats`.

    Raises:
        InputError: no pipeline, or one without a network or a scheduler that can be read, or whose
            network predicts minus the flow; enabled already, or another with the same network;
            rectify follows w and there is no scale; the adapter of another network or chain, or
            something beside it. While the pipeline runs: it asks for three
            predictions, or takes variances that the network learned.
    """
    if pipe in ENABLED:
        raise InputError("pipe", "is enabled already", "Call disable(pipe) first")
    networks = networks_of(pipe)
    if any(module in other.networks for module in networks for other in ENABLED.values()):
        problem = "has its network from another pipeline that is enabled"
        raise InputError("pipe", problem, "Call disable(the other) first")
    levels_of(pipe.scheduler)
    if adapter is not None:
        _alone(guidance, rectify, plan, memory_budget=memory_budget, backend=backend)
        return _on(pipe, Student(pipe, adapter_of(adapter), scale))
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
    return _on(pipe, Rectified(hooks if own or rectify is not None else []))


def _alone(*held: Any, **given: Any) -> None:
    """InputError where something stands beside an adapter that holds it or has no use for it."""
    no_choices(*held)
    for name, value in given.items():
        if value is not None:
            raise InputError(name, "is given, and an adapter has no use for it", "Leave it out")


def _on(pipe: Any, rectified: Rectified) -> Rectified:
    rectified.on()
    ENABLED[pipe] = rectified
    return rectified


def disable(pipe: Any) -> None:
    """Undo `enable(pipe)`; a pipeline that is not enabled stays as it is."""
    rectified = ENABLED.pop(pipe, None)
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
