"""The one door to the engine's arithmetic: plain torch, Triton kernels or C++, by device.

`reference` is formulas.py and always works. `triton` is reg_engine.kernels, on CUDA (or anywhere
under TRITON_INTERPRET=1). `csrc` is the compiled extension, on the CPU and on CUDA. Without
`backend=` the first that works is taken (ORDER), which is logged once for each kind of device; a
backend asked for by name that cannot serve raises. Whatever differentiates goes through
`reference`, which every kind of autodiff understands.

Eager calls go straight to the launchers; under torch.compile the same functions are the opaque ops
`torch.ops.reg_engine.*` (registration.py).
"""

from __future__ import annotations

import importlib
import logging
import os
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..errors import BackendError, choice
from . import extension, formulas, registration
from .checks import check_combine, check_guided_step, check_probe, check_reduce
from .formulas import lagged_product
from .registration import differentiates

__all__ = [
    "BACKENDS",
    "available",
    "combine",
    "differentiates",
    "guided_step",
    "lagged_product",
    "probe",
    "reduce",
    "resolve",
]

BACKENDS = ("reference", "triton", "csrc")
ORDER = {"cuda": ("triton", "csrc", "reference"), "cpu": ("csrc", "reference")}

_log = logging.getLogger("reg_engine")
_failed: dict[tuple[str, str], str] = {}  # (backend, kind of device): why it stopped being used
_proven: set[tuple[str, str, str]] = set()  # (op, backend, kind of device) that ran here


def available(device: torch.device | str) -> dict[str, str]:
    """For each backend "works", or why it cannot serve `device`."""
    kind = torch.device(device).type
    return {name: _reason(name, kind) or "works" for name in BACKENDS}


def resolve(device: torch.device | str, backend: str | None = None) -> str:
    """The backend that will serve `device`.

    Args:
        device: where the tensors are.
        backend: one of BACKENDS, or None = the first that works.

    Raises:
        InputError: unknown name. BackendError: the named backend cannot serve this device.
    """
    return _resolve(torch.device(device).type, backend)


def _resolve(kind: str, backend: str | None) -> str:
    if backend is None:
        return _automatic(kind)
    choice("backend", backend, BACKENDS)
    reason = _reason(backend, kind)
    if reason:
        raise BackendError(f"backend {backend!r} cannot serve {kind}: {reason}")
    return backend


@cache
def _automatic(kind: str) -> str:
    order = ORDER.get(kind, ("reference",))
    reasons = {name: _reason(name, kind) for name in order}
    chosen = next(name for name in order if not reasons[name])
    skipped = "; ".join(f"no {name}: {why}" for name, why in reasons.items() if why)
    _log.info("ops on %s: %s%s", kind, chosen, f" ({skipped})" if skipped else "")
    return chosen


# What torch.compiler.assume_constant_result sets; the decorator itself imports all of Dynamo.
_resolve._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _reason(backend: str, kind: str) -> str:
    """Why `backend` cannot serve a kind of device; "" if it can."""
    if (backend, kind) in _failed:
        return _failed[backend, kind]
    if backend == "reference":
        return ""
    if backend == "csrc":
        state = extension.load().get(kind, f"it has no ops for {kind}")
        return "" if state == "loaded" else state
    if kind != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return "Triton compiles for GPUs; set TRITON_INTERPRET=1 to run it slowly anywhere"
    try:
        importlib.import_module("triton")
    except ImportError as error:
        return f"Triton is not installed ({error})"
    return ""


@cache
def _launcher(name: str, backend: str) -> Callable[..., None]:
    if backend == "csrc":
        return extension.op(name)
    module = importlib.import_module(f"reg_engine.kernels.{name}")
    launcher: Callable[..., None] = getattr(module, name)
    return launcher


def _ran(name: str, device: torch.device, backend: str | None, args: tuple[Any, ...]) -> bool:
    """Run the launcher of the resolved backend; False = `reference` is to be used.

    The first run of an op may fail (a JIT compiler that is missing, a GPU that is too old). Nothing
    is written then; an automatic choice goes on to the next backend, and says so.
    """
    chosen = _resolve(device.type, backend)
    if chosen == "reference":
        return False
    if backend is not None or (name, chosen, device.type) in _proven:
        _launcher(name, chosen)(*args)
        return True
    try:
        _launcher(name, chosen)(*args)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        reason = f"{name} failed to start: {str(error).splitlines()[0] if str(error) else error!r}"
        _failed[chosen, device.type] = reason
        _automatic.cache_clear()
        warnings.warn(f"reg_engine leaves backend {chosen!r}: {reason}", stacklevel=3)
        return _ran(name, device, None, args)
    _proven.add((name, chosen, device.type))
    return True


def combine(
    cond: Tensor,
    ref: Tensor | None = None,
    term: Tensor | None = None,
    w: float = 1.0,
    channels: int = -1,
    *,
    backend: str | None = None,
) -> Tensor:
    """guided = cond + w T: see `formulas.combine`.

    Raises:
        InputError: shapes, dtypes or devices that do not fit. BackendError: see `resolve`.
    """
    check_combine(cond, ref, term, channels, None)
    if registration.traced(cond, backend, _resolve):
        return registration.call("combine", cond, ref, term, w, channels, backend)
    if not differentiates(cond, ref, term):
        out = torch.empty_like(cond)
        if _ran("combine", cond.device, backend, (cond, ref, term, w, channels, out)):
            return out
    return formulas.combine(cond, ref, term, w, channels)


def guided_step(
    x: Tensor,
    cond: Tensor,
    table: Tensor,
    step: Tensor,
    *,
    ref: Tensor | None = None,
    term: Tensor | None = None,
    weight: Tensor | None = None,
    gain: Tensor | None = None,
    noise: Tensor | None = None,
    history: Tensor | None = None,
    nonfinite: Tensor | None = None,
    channels: int = -1,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """The whole guidance step in one pass: see `formulas.guided_step`.

    Args:
        out: where x_s is written, may be x itself; None = a new tensor.

    Raises:
        InputError: shapes, dtypes or devices that do not fit. BackendError: see `resolve`.
    """
    options = (ref, term, weight, gain, noise, history, nonfinite, channels)
    check_guided_step(x, cond, table, step, *options, out)
    given = (x, cond, table, step, *options)
    if registration.traced(x, backend, _resolve):
        return _into(out, registration.call("guided_step", *given, backend))
    if not differentiates(x, cond, table, *options[:-1]):
        target = torch.empty_like(x) if out is None else out
        if _ran("guided_step", x.device, backend, (*given, target)):
            return target
    names = formulas.STEP_OPTIONS
    own: Any = dict(zip(names, options, strict=True))
    return _into(out, formulas.guided_step(x, cond, table, step, **own))


def reduce(
    u: Tensor, v: Tensor | None = None, w: Tensor | None = None, *, backend: str | None = None
) -> Tensor:
    """Gram matrix of (1, u, v, w) of each sample, (B, k, k): see `formulas.reduce`.

    Raises:
        InputError: shapes, dtypes or devices that do not fit. BackendError: see `resolve`.
    """
    check_reduce(u, v, w)
    if registration.traced(u, backend, _resolve):
        return registration.call("reduce", u, v, w, backend)
    if not differentiates(u, v, w):
        k = 1 + sum(t is not None for t in (u, v, w))
        out = torch.empty(u.shape[0], k, k, dtype=formulas.widest(u.device), device=u.device)
        if _ran("reduce", u.device, backend, (u, v, w, out)):
            return out
    return formulas.reduce(u, v, w)


def probe(
    x: Tensor,
    direction: Tensor,
    length: Tensor,
    table: Tensor,
    step: Tensor,
    copies: int = 2,
    dtype: torch.dtype | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """The network's input [x; ...; x; x + h d] times c_in: see `formulas.probe`.

    Raises:
        InputError: shapes, dtypes or devices that do not fit. BackendError: see `resolve`.
    """
    check_probe(x, direction, length, table, step, copies, dtype)
    given = (x, direction, length, table, step, copies)
    if registration.traced(x, backend, _resolve):
        return registration.call("probe", *given, dtype, backend)
    if not differentiates(x, direction, length, table):
        shape = ((copies + 1) * x.shape[0], *x.shape[1:])
        out = torch.empty(shape, dtype=dtype or x.dtype, device=x.device)
        if _ran("probe", x.device, backend, (*given, out)):
            return out
    return formulas.probe(*given, dtype)


def _into(out: Tensor | None, value: Tensor) -> Tensor:
    return value if out is None else out.copy_(value)


registration.register(combine=combine, guided_step=guided_step, reduce=reduce, probe=probe)
