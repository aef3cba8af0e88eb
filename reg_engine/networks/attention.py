"""Which kernel computes attention: chosen by name (for a whole model: attention_models.py).

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
which forward AD and the oracles' double backward need (`sdpa_kernel(SDPBackend.MATH)` around the
call). A package's kernel drops the tangent of forward AD without a word, so it is refused there; so
is every kernel that was asked for by name, math excepted. `jvp` does not use forward AD: it takes
every kernel of PyTorch's, and refuses the packages'.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from threading import RLock

import torch
import torch.autograd.forward_ad as fwAD
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import has_torch_function

from ..errors import EstimatorError, InputError, choice
from .math_attention import math_attention

__all__ = [
    "BACKENDS",
    "KERNELS",
    "PACKAGES",
    "attention",
    "available",
    "check",
    "refuse_tangents",
]

KERNELS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
# name -> (module, function); both take (batch, tokens, heads, width)
PACKAGES = {
    "xformers": ("xformers.ops", "memory_efficient_attention"),
    "flash_attn": ("flash_attn", "flash_attn_func"),
}
_PACKAGE_DEVICES = ("cuda",)
BACKENDS = ("auto", "sdpa", *KERNELS, *PACKAGES)
_TURN = RLock()
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
    if backend in PACKAGES:
        function = _from_package(backend, q.device)
        return function(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    if backend == "math":
        return math_attention(q, k, v)
    # The choice is the process's: two threads that ask for different kernels take turns.
    with _TURN, sdpa_kernel(KERNELS[choice("attention", backend, BACKENDS)]):
        return F.scaled_dot_product_attention(q, k, v)


def refuse_tangents(backend: str, *inputs: object) -> None:
    """Raise EstimatorError if one of `inputs` carries a tangent that the kernel would drop: of
    forward AD, or, beside a package's kernel, of a stacked dual."""
    carried = backend in PACKAGES and has_torch_function(inputs)
    if carried or (fwAD._current_level >= 0 and any(map(_has_tangent, inputs))):
        raise EstimatorError(
            f"attention {backend!r} has no forward derivative. Use attention='auto' or 'math' "
            "for 'jvp', or rectify='vjp', 'fd_batched' or 'fd'."
        )


def _has_tangent(value: object) -> bool:
    return isinstance(value, Tensor) and fwAD.unpack_dual(value).tangent is not None


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
    module, function = PACKAGES[name]
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
