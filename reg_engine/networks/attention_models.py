"""The attention kernel of a whole model: of our networks, and of those of diffusers."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from torch import nn

from ..errors import InputError, choice
from .attention import BACKENDS, KERNELS, PACKAGES, check, refuse_tangents
from .denoisers import Denoiser
from .modules import dtype_of, modules_of

__all__ = ["set_attention"]


def set_attention(model: Denoiser | nn.Module, name: str) -> int:
    """Let every attention layer of a model use a backend, after trying it where the model is.

    Served are modules with a text `attention_backend` (those of `reg_engine.models`) and, inside
    or outside a wrapper, the models of diffusers. diffusers makes the backend that was set last
    the default of all its models.

    Args:
        model: a Denoiser, or a nn.Module; on its device, in its dtype.
        name: one of BACKENDS; `auto` goes back to PyTorch's choice. An Engine that has captured
            CUDA graphs keeps what it captured: set first.

    Returns:
        How many layers were set.

    Raises:
        InputError: an unknown name; a backend that cannot serve there; no layer to set.
    """
    choice("attention", name, BACKENDS)
    modules = modules_of(model) if isinstance(model, nn.Module) else model.modules
    own = [
        layer
        for module in modules
        for layer in module.modules()
        if isinstance(getattr(layer, "attention_backend", None), str)
    ]
    foreign = [found for module in modules for found in _diffusers(module)]
    if not own and not foreign:
        raise InputError(
            "model",
            f"{type(model).__name__} has no attention layer that can be set",
            "Give a network of reg_engine.models or of diffusers, or let your layers call "
            "reg_engine.networks.attention.attention with their own `attention_backend`",
        )
    parameter = next(p for module in modules for p in module.parameters())
    dtype = (model.dtype if isinstance(model, Denoiser) else dtype_of(modules)) or parameter.dtype
    for width in {getattr(layer, "width", 64) for layer in own} | ({64} if foreign else set()):
        check(name, parameter.device, dtype, width)
    plans = [(found, _takes_backend(found, name)) for found in foreign]  # nothing is set yet
    for layer in own:
        layer.attention_backend = name  # type: ignore[assignment]
    return len(own) + sum(_set_diffusers(found, name, takes) for found, takes in plans)


# diffusers' names for the same kernels
_DIFFUSERS = {
    "auto": "native",
    "sdpa": "native",
    **{name: f"_native_{name}" for name in KERNELS},
    "xformers": "xformers",
    "flash_attn": "flash",
}
# diffusers' older processors have one kernel each and replace each other
_PROCESSORS = {
    "auto": "AttnProcessor2_0",
    "sdpa": "AttnProcessor2_0",
    "math": "AttnProcessor",
    "xformers": "XFormersAttnProcessor",
}


def _diffusers(module: nn.Module) -> Iterator[Any]:
    """The outermost modules that choose attention the way diffusers' models do."""
    if hasattr(module, "set_attention_backend") and _layers(module):
        yield module
    else:
        for child in module.children():
            yield from _diffusers(child)


def _layers(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if hasattr(m, "processor") and hasattr(m, "set_processor")]


def _takes_backend(model: Any, name: str) -> bool:
    """Whether the model's processors take a backend, or must be replaced.

    Raises:
        InputError: neither can be done.
    """
    processors = [layer.processor for layer in _layers(model)]
    if all(hasattr(processor, "_attention_backend") for processor in processors):
        return True
    kinds = {type(processor).__name__ for processor in processors}
    if name in _PROCESSORS and kinds <= set(_PROCESSORS.values()):
        return False
    raise InputError(
        "attention",
        f"{type(model).__name__} cannot be told {name!r}: its processors "
        f"({', '.join(sorted(kinds))}) choose for themselves",
        f"Use {', '.join(_PROCESSORS)} with plain AttnProcessors, or set your own processors",
    )


def _set_diffusers(model: Any, name: str, takes_backend: bool) -> int:
    layers = _layers(model)
    if takes_backend:
        model.set_attention_backend(_DIFFUSERS[name])
    else:
        processors = importlib.import_module("diffusers.models.attention_processor")
        for layer in layers:
            layer.set_processor(getattr(processors, _PROCESSORS[name])())
    guard = model.__dict__.pop("_reg_engine_guard", None)
    if guard is not None:
        guard.remove()
    if name in PACKAGES:  # their kernels would drop the tangent inside diffusers' own code

        def refuse(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            refuse_tangents(name, *args, *kwargs.values())

        model.__dict__["_reg_engine_guard"] = model.register_forward_pre_hook(
            refuse, with_kwargs=True
        )
    return len(layers)
