"""What a pickled EDM2 network says of itself beside its tensors: constants, and its encoder's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..models.latents import EDM2_LATENTS, Latents
from .records import Record
from .states import items_of

__all__ = ["constants_of", "latents_of_encoder"]

# Constants of the paper's config G, which the network here has for good.
_CONSTANTS = {
    "label_balance": 0.5,
    "concat_balance": 0.5,
    "res_balance": 0.3,
    "attn_balance": 0.3,
    "clip_act": 256,
}
_MODULES = 1 << 15


def constants_of(settings: Mapping[str, Any]) -> tuple[float, int]:
    """(sigma_data, channels of an attention head) of a network; the published ones if unsaid.

    Args:
        settings: the attributes of the module; empty for a state dict.

    Raises:
        ValueError: it was made with other constants than the published ones.
    """
    sigma, widths = settings.get("sigma_data", 0.5), set()
    if type(sigma) is not float or not 0 < sigma < 1e6:
        raise ValueError("sigma_data is no number > 0")
    for state in _states(settings):
        for name, value in _CONSTANTS.items():
            if name in state and not (type(state[name]) in (int, float) and state[name] == value):
                raise ValueError(f"{name} is another than {value}, which is not read here")
        if type(state.get("num_heads")) is int and state["num_heads"]:
            channels = state.get("out_channels")
            widths.add(channels // state["num_heads"] if type(channels) is int else 0)
    if len(widths) > 1 or not all(width > 0 for width in widths):
        raise ValueError("attention heads of several widths")
    return sigma, next(iter(widths), 64)


def _states(settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The attributes of all modules in one."""
    waiting, seen = [settings], 0
    while waiting:
        for part in items_of(waiting.pop().get("_modules")).values():
            if isinstance(part, Record) and type(part.state) is dict:
                seen += 1
                if seen > _MODULES:
                    raise ValueError(f"more than {_MODULES} modules")
                waiting.append(part.state)
                yield part.state


def latents_of_encoder(tree: Any, channels: int) -> Latents | None:
    """What a snapshot's encoder makes of latents; that of the paper if it says nothing; None: the
    network's samples are pictures.

    Args:
        tree: the whole snapshot. channels: of a sample.

    Raises:
        ValueError, InputError: numbers that cannot be read.
    """
    encoder = items_of(tree).get("encoder")
    held = encoder.state if isinstance(encoder, Record) else None
    if type(held) is dict and "scale" in held and "bias" in held:
        scale, bias = _numbers(held["scale"]), _numbers(held["bias"])
        if len(scale) != channels or len(bias) != channels:
            raise ValueError(f"an encoder for {len(scale)} channels, the network has {channels}")
        shift = tuple(-b / s for s, b in zip(scale, bias, strict=True))
        return Latents(scale, shift, EDM2_LATENTS.value_range)
    return EDM2_LATENTS if channels == 4 else None


def _numbers(value: Any) -> tuple[float, ...]:
    """The values of a pickled array of float32: its bytes, whichever way they were written."""
    if not isinstance(value, Record):
        raise ValueError("an encoder whose scale is no array")
    state = value.state
    parts = state if type(state) is tuple and len(state) == 5 else value.args
    data = next((part for part in parts if type(part) is memoryview), b"")
    kinds = [part for part in parts if isinstance(part, Record) and type(part.state) is tuple]
    floats = any((kind.args[:1], kind.state[1:2]) == (("f4",), ("<",)) for kind in kinds)
    if not floats or not 0 < len(data) <= 256 or len(data) % 4:
        raise ValueError("an encoder whose scale is no row of float32 numbers")
    return tuple(float(number) for number in np.frombuffer(data, "<f4"))
