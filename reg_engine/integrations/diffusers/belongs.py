"""Whether an adapter belongs to a pipeline: to its network's weights, and its scheduler's chain."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import nn

from ...adapters.families import family_of
from ...errors import InputError
from ...networks.adapter import Adapter, adapter_of
from ...networks.denoisers import Denoiser
from ...networks.lowrank import wearing
from .enabled import networks_of
from .hook import THREE
from .levels import levels_of

__all__ = ["Held", "adapted_network"]

GROUPS = "group_offloading"  # the hook of diffusers that keeps weights elsewhere


def adapted_network(pipe: Any, adapter: Adapter) -> nn.Module:
    """The module whose layers the adapter changes: the pipeline's network, at any size of pictures,
    under any scheduler of the same chain or flow.

    Raises:
        InputError: another network or chain; two networks; a pipeline of three predictions a step;
            weights that are not where they can be changed.
    """
    networks, name = networks_of(pipe), type(pipe).__name__
    if len(networks) > 1:
        problem = f"is a {name} with {len(networks)} networks, and an adapter is of one"
        raise InputError("pipe", problem, "Leave the adapter out")
    if any(hasattr(pipe, attribute) for attribute in THREE):
        problem = f"is a {name}, which asks for three predictions a step"
        raise InputError("pipe", problem, "Take the pipeline of two, with and without condition")
    network: nn.Module = getattr(networks[0], "_orig_mod", networks[0])  # of torch.compile
    if any(map(_kept_elsewhere, network.modules())):
        problem = "keeps its network's weights elsewhere, or in 8 bits, between calls"
        remedy = "Take enable_model_cpu_offload, which moves them as a whole, or no offloading"
        raise InputError("pipe", problem, remedy)
    levels, family = levels_of(pipe.scheduler), family_of(network)
    adapter.check(
        Denoiser(
            network,
            levels.prediction,
            levels.schedule,
            adapter.model.get("sample_shape", ()),
            num_classes=None if family is None else family[1].num_classes,
            modules=[network],
        )
    )
    return network


def _kept_elsewhere(module: nn.Module) -> bool:
    hooks = getattr(getattr(module, "_diffusers_hook", None), "hooks", {})
    held = module.parameters(recurse=False)
    return GROUPS in hooks or any(p.is_meta or p.dtype.itemsize == 1 for p in held)


class Held:
    """An adapter at a scale, for an engine that samples with a pipeline's network.

    Args:
        network: see adapted_network.
        scale: that it was trained for, or 1.
    """

    def __init__(self, network: nn.Module, adapter: Adapter, scale: Any) -> None:
        self.network, self.change = network, adapter.change
        self.scale, self.holds = adapter.holding(scale)

    @classmethod
    def of(
        cls,
        pipe: Any,
        adapter: str | os.PathLike[str] | Adapter,
        scale: Any = None,
        negative: Any = None,
    ) -> Held:
        """Of a pipeline; scale None = 2.

        Raises:
            InputError: as of adapted_network and Adapter.load; a negative prompt beside it.
        """
        if negative:
            problem = "is given, and the adapter was trained with a reference of its own"
            raise InputError("negative", problem, "Leave it out, or sample without adapter")
        found = adapter_of(adapter)
        return cls(adapted_network(pipe, found), found, 2.0 if scale is None else scale)

    @contextmanager
    def on(self, denoiser: Denoiser, choices: dict[str, Any]) -> Iterator[None]:
        """While it is open the network's weights hold the guidance, and the engine's choices are
        those without any."""
        choices |= {"scale": 1.0, "rectify": None}
        denoiser.holds = self.holds
        change = self.change.to(denoiser.device)
        with wearing([self.network], change, self.scale) if self.holds else nullcontext():
            yield
