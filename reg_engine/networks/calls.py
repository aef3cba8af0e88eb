"""How a network is called beside (x, t, cond), and what it may return."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor, nn
from torch.overrides import has_torch_function

from ..errors import EstimatorError, InputError
from ..values import as_tuple, shown
from .modules import COMPUTED

__all__ = ["as_computed", "as_extra", "as_modules", "checked", "told_scale"]


def as_extra(extra: Any, net: Callable[..., Any]) -> dict[str, Any]:
    """Keyword arguments of `net` beside (x, t, cond); None = none.

    Raises:
        InputError: no dict of names, or one that does not fit net.
    """
    if extra is None:
        return {}
    if not isinstance(extra, Mapping) or not all(isinstance(key, str) for key in extra):
        raise InputError("extra", f"is {shown(extra)}", "Give a dict of net's keyword arguments")
    try:
        signature = inspect.signature(net.forward if isinstance(net, nn.Module) else net)
    except (TypeError, ValueError):
        return dict(extra)  # compiled code does not tell
    try:
        signature.bind(None, None, None, **extra)
    except TypeError as error:
        remedy = "Give keyword arguments of net beside (x, t, cond)"
        raise InputError("extra", f"does not fit net ({error})", remedy) from error
    return dict(extra)


def as_modules(modules: Any) -> tuple[nn.Module, ...] | None:
    """The torch modules that a network runs; None = those that are found in it."""
    if modules is None:
        return None
    remedy = "Give the torch.nn.Modules that net runs"
    listed = [modules] if isinstance(modules, nn.Module) else modules
    kept = as_tuple("modules", listed, remedy)
    if not all(isinstance(module, nn.Module) for module in kept):
        raise InputError("modules", f"is {shown(modules)}", remedy)
    return kept


def as_computed(dtype: Any) -> torch.dtype | None:
    """A dtype that networks compute in; None = that of its modules."""
    if dtype is None or (isinstance(dtype, torch.dtype) and dtype in COMPUTED):
        return dtype
    raise InputError("dtype", f"is {shown(dtype)}", "Give a floating dtype to compute in")


def checked(output: Any, x: Tensor) -> Tensor:
    """What a network returned for x, if it can be used.

    Raises:
        InputError: something else than a floating tensor of x's shape and device.
        EstimatorError: x carries a derivative and the output does not.
    """
    if not isinstance(output, Tensor):
        raise InputError(
            "model",
            f"returned a {type(output).__name__}",
            "The network must return one tensor: wrap it in a function that picks it",
        )
    if output.shape != x.shape:
        raise InputError(
            "model",
            f"returned shape {tuple(output.shape)} for an input of {tuple(x.shape)}",
            "The network must return the shape of its input (Denoiser(learned_variance=True) if it "
            "returns a learned variance too)",
        )
    if output.device != x.device or not output.is_floating_point():
        raise InputError(
            "model",
            f"returned {output.dtype} on {output.device} for input on {x.device}",
            "The network must return floating point values on its input's device",
        )
    if x.requires_grad and torch.is_grad_enabled() and not output.requires_grad:
        raise EstimatorError(
            "the network cuts the autograd graph (no_grad, detach, numpy or a compiled engine), so "
            "'paper', 'vjp' and 'diagonal' cannot serve it. Use rectify='fd_batched' or 'fd'."
        )
    if fwAD._current_level >= 0 and _has_tangent(x) and not _has_tangent(output):
        raise EstimatorError(
            "the network drops the tangent of forward AD (a custom op or compiled part): its "
            "derivative would be silently zero."
        )
    return output


def _has_tangent(value: Tensor) -> bool:
    return not has_torch_function((value,)) and fwAD.unpack_dual(value).tangent is not None


def told_scale(adapter: object) -> None:
    """Raise InputError where a model with an adapter is asked as it is: nobody said the scale, and
    its own weights would answer as if there were no adapter."""
    if adapter is not None:
        problem = "has an adapter, and is asked without a scale here"
        raise InputError("model", problem, "Sample with an Engine or a Guide, or leave it out")
