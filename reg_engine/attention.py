"""Which kernel computes attention: chosen by name, for our networks and for those of diffusers.

    name         kernel                                 forward AD   double backward
    auto, sdpa   PyTorch chooses (below)                with math    with math
    math         matmul, softmax, matmul                yes          yes
    flash        PyTorch's own FlashAttention           no           no
    efficient    PyTorch's memory-efficient kernel      no           no
    cudnn        cuDNN's, CUDA only                     no           no
    xformers     the package, CUDA only                 no           no
    flash_attn   the package, CUDA only, half types     no           no

All have the plain reverse derivative that `vjp` takes. `auto` is `sdpa` and never a package:
PyTorch's call chooses the best of its own kernels for each shape, xformers' attention is made of
those kernels or moved to another package, and only PyTorch's can be told to use math from outside,
which `jvp` and the oracles' double backward need (`sdpa_kernel(SDPBackend.MATH)` around the call).
A package's kernel drops the tangent of forward AD without a word, so it is refused there; so is
every kernel that was asked for by name, math excepted.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.autograd.forward_ad as fwAD
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .errors import EstimatorError, InputError, choice

if TYPE_CHECKING:
    from .denoisers import Denoiser

__all__ = ["BACKENDS", "attention", "available", "check", "refuse_tangents", "set_attention"]

_KERNELS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
# name -> (module, function); both take (batch, tokens, heads, width)
_PACKAGES = {
    "xformers": ("xformers.ops", "memory_efficient_attention"),
    "flash_attn": ("flash_attn", "flash_attn_func"),
}
_PACKAGE_DEVICES = ("cuda",)
BACKENDS = ("auto", "sdpa", *_KERNELS, *_PACKAGES)
_WARNED_AS = {
    "flash": "Flash attention",
    "efficient": "Memory efficient",
    "cudnn": "cuDNN attention",
}


def attention(q: Tensor, k: Tensor, v: Tensor, backend: str = "auto") -> Tensor:
    """softmax(q k^T / sqrt(d)) v, not causal and without a mask.

    Args:
        q, k, v: (batch, heads, tokens, d); k and v may have another number of tokens.
        backend: one of BACKENDS.

    Returns:
        (batch, heads, tokens of q, d), in the inputs' dtype.

    Raises:
        InputError: an unknown name; a package that is not installed or has no kernel for the
            device.
        EstimatorError: forward AD through a kernel without a tangent rule.
        RuntimeError: PyTorch's: the kernel cannot serve these shapes or this dtype.
    """
    if backend in ("auto", "sdpa"):
        return F.scaled_dot_product_attention(q, k, v)
    if backend != "math":
        refuse_tangents(backend, q, k, v)
    if backend in _PACKAGES:
        function = _from_package(backend, q.device)
        return function(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    with sdpa_kernel(_KERNELS[choice("attention", backend, BACKENDS)]):
        return F.scaled_dot_product_attention(q, k, v)


def refuse_tangents(backend: str, *inputs: object) -> None:
    """Raise EstimatorError if one of `inputs` carries a forward-mode tangent."""
    if fwAD._current_level < 0:
        return
    for value in inputs:
        if isinstance(value, Tensor) and fwAD.unpack_dual(value).tangent is not None:
            raise EstimatorError(
                f"attention {backend!r} has no forward derivative. Use attention='auto' or 'math' "
                "for 'jvp', or rectify='vjp', 'fd_batched' or 'fd'."
            )


def check(name: str, device: torch.device, dtype: torch.dtype, width: int = 64) -> None:
    """Try a backend, forward and backward, on a few numbers.

    Args:
        name: one of BACKENDS.
        device, dtype: of the queries.
        width: of a head.

    Raises:
        InputError: an unknown name, or one that cannot serve here, with the reason.
    """
    choice("attention", name, BACKENDS)
    reason = _try(name, device, dtype, width)
    if reason:
        works = [other for other in BACKENDS if not _try(other, device, dtype, width)]
        raise InputError(
            "attention",
            f"{name!r} cannot serve {str(dtype).removeprefix('torch.')} heads of width {width} on "
            f"{device.type}: {reason}",
            f"Use {', '.join(works)}",
        )


def set_attention(model: Denoiser | nn.Module, name: str) -> int:
    """Let every attention layer of a model use a backend, after trying it where the model is.

    Served are modules with a text `attention_backend` (those of `reg_engine.models`) and, inside
    or outside a wrapper, the models of diffusers. diffusers makes the backend that was set last
    the default of all its models.

    Args:
        model: a Denoiser around a nn.Module, or a nn.Module; on its device, in its dtype.
        name: one of BACKENDS; `auto` goes back to PyTorch's choice. An Engine that has captured
            CUDA graphs keeps what it captured: set first.

    Returns:
        How many layers were set.

    Raises:
        InputError: an unknown name; a backend that cannot serve there; no layer to set.
    """
    choice("attention", name, BACKENDS)
    modules = [model] if isinstance(model, nn.Module) else list(model.modules)
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
            "reg_engine.attention.attention with their own `attention_backend`",
        )
    parameter = next(p for module in modules for p in module.parameters())
    for width in {getattr(layer, "width", 64) for layer in own} | ({64} if foreign else set()):
        check(name, parameter.device, parameter.dtype, width)
    plans = [(found, _takes_backend(found, name)) for found in foreign]  # nothing is set yet
    for layer in own:
        layer.attention_backend = name  # type: ignore[assignment]
    return len(own) + sum(_set_diffusers(found, name, takes) for found, takes in plans)


def available(device: str | torch.device) -> dict[str, str]:
    """What each backend says on a device: "works", "works in bfloat16, ..." or the reason why not.

    Each is run, forward and backward, in float32 and then bfloat16.
    """
    device, found = torch.device(device), {}
    for name in BACKENDS:
        single = _try(name, device, torch.float32)
        half = _try(name, device, torch.bfloat16) if single else ""
        found[name] = "works" if not single else f"not here: {half}"
        if single and not half:
            found[name] = f"works in bfloat16, not in float32: {single}"
    return found


def _try(name: str, device: torch.device, dtype: torch.dtype, width: int = 64) -> str:
    """Why a backend cannot serve, or nothing if it can."""
    drawn = torch.randn(3, 1, 2, 8, width, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings(record=True) as said, torch.inference_mode(False):
        warnings.simplefilter("always")
        try:
            with torch.enable_grad():
                q, k, v = (x.to(device, dtype).requires_grad_() for x in drawn)
                out = attention(q, k, v, name)
                out.sum().backward()
        except Exception as error:  # noqa: BLE001  (a package's kernel may raise anything)
            return _reason(name, error, [str(warning.message) for warning in said])
    scores = drawn[0] @ drawn[1].transpose(-1, -2) / width**0.5
    wrong = (out.detach().float().cpu() - scores.softmax(-1) @ drawn[2]).abs().max()
    # far above bfloat16's rounding (2^-8 of values of order 1), far below another layout's error
    return "" if wrong < 2**-4 else f"its result is off by {float(wrong):.2g}"


def _reason(name: str, error: Exception, said: list[str]) -> str:
    """One line: what PyTorch warned about this kernel, or else the error's own first line."""
    if isinstance(error, InputError):
        return error.problem
    for index, text in enumerate(said[:-1]):
        if name in _WARNED_AS and text.startswith(f"{_WARNED_AS[name]} kernel not used"):
            return _short(said[index + 1])
    return _short(str(error)) or type(error).__name__


def _short(text: str) -> str:
    line = (text.strip().splitlines() or [""])[0]
    return line.split(" (Triggered internally")[0].split(". ")[0].rstrip(".")


def _from_package(name: str, device: torch.device) -> Callable[..., Tensor]:
    module, function = _PACKAGES[name]
    if device.type not in _PACKAGE_DEVICES:  # before the import, which takes seconds and warns
        raise InputError("attention", f"{name} has no {device.type} kernels", "Use 'auto'")
    try:
        found: Callable[..., Tensor] = getattr(importlib.import_module(module), function)
    except ImportError as error:
        raise InputError(
            "attention", f"{name} is not installed ({error})", "Install it, or use 'auto'"
        ) from error
    except AttributeError as error:  # xformers without mslk, its attention's new home
        raise InputError(
            "attention", f"this {name} has no {function}", "Install another version, or use 'auto'"
        ) from error
    return found


# diffusers' names for the same kernels
_DIFFUSERS = {
    "auto": "native",
    "sdpa": "native",
    **{name: f"_native_{name}" for name in _KERNELS},
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
    if name in _PACKAGES:  # their kernels would drop the tangent inside diffusers' own code

        def refuse(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            refuse_tangents(name, *args, *kwargs.values())

        model.__dict__["_reg_engine_guard"] = model.register_forward_pre_hook(
            refuse, with_kwargs=True
        )
    return len(layers)
