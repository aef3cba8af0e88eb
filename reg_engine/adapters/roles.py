"""Which part of a pipeline is its network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InputError

__all__ = ["SCHEDULER", "only_network"]

SCHEDULER = "scheduler"
ROLES = ("unet", "transformer")
BESIDE = ("transformer_2", "controlnet", "t2i_adapter", "adapter", "motion_adapter")
REMEDY = "Give its network, denoiser_of(network, scheduler=...), or a function through Denoiser"


def only_network(parts: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The name of the network among a pipeline's parts.

    Raises:
        InputError: it has none, or more than one that says what the sample becomes.
    """
    here = [role for role in ROLES if parts.get(role) is not None]
    if len(here) != 1:
        problem = "has no unet and no transformer" if not here else "has a unet and a transformer"
        raise InputError("model", f"the pipeline {problem}", REMEDY)
    if beside := [part for part in BESIDE if parts.get(part) is not None]:
        problem = f"the pipeline has a {beside[0]} beside its {here[0]}"
        raise InputError("model", f"{problem}, and would lose it here", REMEDY)
    return here[0]
