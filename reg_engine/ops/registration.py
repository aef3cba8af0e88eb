"""The ops as `torch.ops.reg_engine.*`: what torch.compile, torch.export and vmap see of them.

A registered op with an autograd formula is silently wrong in forward mode and fails under
torch.func. So nothing is registered to differentiate: at the Autograd key the plain torch formula
itself runs whenever something differentiates, and every mode is right (or raises), to any order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor

from . import formulas

__all__ = ["SCHEMAS", "call", "differentiates", "register", "traced"]

SCHEMAS = {
    "combine": "(Tensor cond, Tensor? ref, Tensor? term, float w, int channels=-1, "
    "str? backend=None) -> Tensor",
    "guided_step": "(Tensor x, Tensor cond, Tensor table, Tensor step, Tensor? ref, Tensor? term, "
    "Tensor? weight, Tensor? gain, Tensor? noise, Tensor(a!)? history, Tensor(b!)? nonfinite, "
    "int channels=-1, str? backend=None) -> Tensor",
    "reduce": "(Tensor u, Tensor? v, Tensor? w, str? backend=None) -> Tensor",
    "probe": "(Tensor x, Tensor direction, Tensor length, Tensor table, Tensor step, int copies=2, "
    "ScalarType? dtype=None, str? backend=None) -> Tensor",
}

_library = torch.library.Library("reg_engine", "DEF")
for _name, _schema in SCHEMAS.items():
    _library.define(_name + _schema, tags=(torch.Tag.pt2_compliant_tag,))


def differentiates(*tensors: Tensor | None) -> bool:
    """Whether a derivative of any kind is being taken through one of the tensors."""
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return True  # vmap too: the formula batches, a launcher does not
    given = [t for t in tensors if t is not None]
    if torch.is_grad_enabled() and any(t.requires_grad for t in given):
        return True
    return fwAD._current_level >= 0 and any(
        fwAD.unpack_dual(t).tangent is not None for t in given if t.is_floating_point()
    )


def traced(like: Tensor, backend: str | None, resolve: Callable[[str, str | None], str]) -> bool:
    """Whether a compiler is looking and should see one opaque op (`reference` it may look into)."""
    return formulas.traced(like) and resolve(like.device.type, backend) != "reference"


def call(name: str, *args: Any) -> Tensor:
    """The registered op."""
    result: Tensor = getattr(torch.ops.reg_engine, name).default(*args)
    return result


def register(**eager: Callable[..., Tensor]) -> None:
    """Give the ops their implementations: the functions of door.py."""
    implementations = {
        "combine": lambda c, ref, t, w, ch=-1, b=None: _fresh(
            eager["combine"](c, ref, t, w, ch, backend=b), c
        ),
        "guided_step": _guided_step(eager["guided_step"]),
        "reduce": lambda u, v, w, b=None: eager["reduce"](u, v, w, backend=b),
        "probe": lambda x, d, h, tab, s, n=2, dt=None, b=None: eager["probe"](
            x, d, h, tab, s, n, dt, backend=b
        ),
    }
    for name, implementation in implementations.items():
        _library.impl(name, implementation, "CompositeExplicitAutograd")
        _library.impl(name, _at_autograd(name), "Autograd", with_keyset=True)
        torch.library.register_fake(f"reg_engine::{name}", _FAKES[name], lib=_library)
        torch.library.register_vmap(f"reg_engine::{name}", _vmapped(name), lib=_library)


def _guided_step(eager: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The door's function, with the op's own argument order."""

    def implementation(x: Tensor, *given: Any) -> Tensor:
        names = (*formulas.STEP_OPTIONS, "backend")
        return _fresh(eager(x, *given[:3], **dict(zip(names, given[3:], strict=False))), x)

    return implementation


def _fresh(value: Tensor, like: Tensor) -> Tensor:
    """A result of its own with the strides the fake promises (a plain formula may return cond)."""
    wanted = torch.empty_like(like)
    if value is not like and value.stride() == wanted.stride():
        return value
    return wanted.copy_(value)


def _formula(name: str) -> Callable[..., Tensor]:
    """The plain torch twin, with the op's own argument order."""

    def guided_step(x: Tensor, cond: Tensor, table: Tensor, step: Tensor, *rest: Any) -> Tensor:
        own = dict(zip(formulas.STEP_OPTIONS, rest, strict=False))
        return formulas.guided_step(x, cond, table, step, **own)

    return guided_step if name == "guided_step" else getattr(formulas, name)


def _without_backend(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return args[: len(SCHEMAS[name].split("->")[0].split(",")) - 1]


def _at_autograd(name: str) -> Callable[..., Tensor]:
    formula = _formula(name)
    op = getattr(torch.ops.reg_engine, name).default
    below = torch._C._after_autograd_keyset

    def implementation(keyset: Any, *args: Any) -> Tensor:
        if differentiates(*(a for a in args if isinstance(a, Tensor))):
            return formula(*_without_backend(name, args))
        with torch._C._AutoDispatchBelowAutograd():
            result: Tensor = op.redispatch(keyset & below, *args)
        return result

    return implementation


def _vmapped(name: str) -> Callable[..., tuple[Tensor, int]]:
    """The op over one more batch dimension: folded into dim 0, the samples being independent."""
    op = getattr(torch.ops.reg_engine, name).default
    names = [argument.name for argument in op._schema.arguments]

    def rule(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        given = dict(zip(names, args, strict=False))
        dims = dict(zip(names, in_dims, strict=False))
        if any(dims.get(shared) is not None for shared in ("table", "step")):
            raise RuntimeError(f"reg_engine::{name} under vmap: table and step must be shared")
        if given.get("nonfinite") is not None:
            raise RuntimeError(f"reg_engine::{name} under vmap: nonfinite cannot be kept")
        history, place = given.get("history"), dims.get("history")
        if history is not None and place is None:
            raise RuntimeError(f"reg_engine::{name} under vmap: history must be batched too")
        size = info.batch_size
        for key, value in given.items():
            if not isinstance(value, Tensor) or key in ("table", "step", "history"):
                continue
            dim = dims[key]
            value = value.expand(size, *value.shape) if dim is None else value.movedim(dim, 0)
            given[key] = value.flatten(0, 1)
        if history is not None:
            given["history"] = history.movedim(place, 1).flatten(1, 2).contiguous()
        result: Tensor = op(*given.values())
        if history is not None:
            history.movedim(place, 1).copy_(given["history"].unflatten(1, (size, -1)))
        if name == "probe":  # (copies + 1, size, B) rows
            parts = result.unflatten(0, (given.get("copies", 2) + 1, size, -1))
            return parts.transpose(0, 1).flatten(1, 2), 0
        return result.unflatten(0, (size, -1)), 0

    return rule


def _fake_reduce(u: Tensor, v: Tensor | None, w: Tensor | None, backend: Any = None) -> Tensor:
    k = 1 + sum(t is not None for t in (u, v, w))
    return u.new_empty((u.shape[0], k, k), dtype=formulas.widest(u.device))


def _fake_probe(x: Tensor, direction: Tensor, *rest: Any) -> Tensor:
    copies, dtype = (*rest[3:], *(2, None)[len(rest) - 3 :])[:2]
    return x.new_empty(((copies + 1) * x.shape[0], *x.shape[1:]), dtype=dtype or x.dtype)


_FAKES: dict[str, Callable[..., Tensor]] = {
    "combine": lambda cond, *rest: torch.empty_like(cond),
    "guided_step": lambda x, *rest: torch.empty_like(x),
    "reduce": _fake_reduce,
    "probe": _fake_probe,
}
