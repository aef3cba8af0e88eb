"""What a dual pass needs of PyTorch beyond a dual level, for the thread that runs it alone.

A dual level is one for the whole process, so dual passes take turns. The rest holds in the calling
thread, since another one may run the same network meanwhile: `sdpa_kernel` and
`torch.backends.mha.set_fastpath_enabled` would change that one's kernels, and rounding, too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import reduce
from itertools import islice
from threading import RLock
from typing import Any

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from ..errors import EstimatorError
from ..networks.math_attention import math_attention
from ..networks.modules import search
from ..networks.sharing import as_it_was

__all__ = ["dual_pass", "out_of_memory"]

_TURN = RLock()


@contextmanager
def dual_pass(net: object) -> Iterator[None]:
    """Context of a forward pass of `net` with tangents, through ops that have a rule for them; its
    blocks run as they are, not compiled or checkpointed."""
    inside = (module for root in islice(search(net), 1) for module in root.modules())
    scripted = any(isinstance(module, torch.jit.ScriptModule) for module in inside)
    # A script's calls cannot be swapped: the process's switch is all there is for it.
    attention = sdpa_kernel(SDPBackend.MATH) if scripted else nullcontext()
    with _TURN, torch.inference_mode(False), torch.no_grad(), as_it_was(), attention, _level():
        yield


@contextmanager
def _level() -> Iterator[None]:
    if fwAD._current_level >= 0:
        raise EstimatorError(
            "'jvp' cannot start: this process is inside a forward derivative already, and PyTorch "
            "allows one. End it first, or use rectify='vjp', 'fd_batched' or 'fd'."
        )
    with fwAD.dual_level(), _Ruled():
        yield


class _Ruled(TorchFunctionMode):
    """Swaps calls without a forward rule for the same in ops that have one.

    PyTorch's attention modules leave their fused inference path by themselves under such a mode.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(getattr(func, "__name__", "")).partition(".")[0]  # of an overload: its op
        swap = _SWAPS.get(name)
        if swap is None:
            return func(*args, **(kwargs or {}))
        return swap(func, *args, **(kwargs or {}))


def _norm(func: Callable[..., Any], input: Tensor, *args: Any, **kwargs: Any) -> Any:
    # Beside weights of another dtype the rules lose the input's: all in the wider one.
    weights = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    wide = reduce(torch.promote_types, (w.dtype for w in weights), input.dtype)
    return func(input.to(wide), *args, **kwargs).to(input.dtype)


def _group_norm(func: Callable[..., Any], input: Tensor, *args: Any, **kwargs: Any) -> Any:
    return _norm(func, input.contiguous(), *args, **kwargs)  # its rule views the input as rows


def _attention(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return math_attention(*args, **kwargs)


def _module_attention(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    # What this function calls is out of the mode's sight. It has a path of plain products, which it
    # takes where the weights are asked for.
    bound = inspect.signature(func).bind(*args, **kwargs)
    bound.apply_defaults()
    asked = bound.arguments["need_weights"]
    plain = asked or not bound.arguments["is_causal"] or bound.arguments["attn_mask"] is not None
    bound.arguments["need_weights"] = plain
    output, weights = func(*bound.args, **bound.kwargs)
    return output, weights if asked else None


_SWAPS: dict[str, Callable[..., Any]] = {
    "group_norm": _group_norm,
    "layer_norm": _norm,
    "batch_norm": _norm,
    "instance_norm": _norm,
    "scaled_dot_product_attention": _attention,
    "multi_head_attention_forward": _module_attention,
}


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: on a device, or on the host, where PyTorch has no type for it."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
