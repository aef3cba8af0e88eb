"""The dual ops as `torch.ops.reg_engine.*`, and what shapes alone tell: results and flops.

Nothing is registered to differentiate, as for the other ops: at the Autograd key, and under vmap,
the formula in elementary ops runs. Each op comes twice: `default` returns new tensors, `into`
writes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from ..registration import differentiates
from .activation import GATED, activation_plain
from .attention import attention_flops, attention_plain
from .blocks import Pair
from .norm import norm_plain

__all__ = ["PLAIN", "call", "count_flops", "new_outputs", "register"]

ARGUMENTS = {
    "attention_dual": "Tensor q, Tensor k, Tensor v, Tensor? q_t, Tensor? k_t, Tensor? v_t, "
    "Tensor? attn_mask, bool is_causal, float? scale, bool enable_gqa",
    "norm_dual": "Tensor x, Tensor x_t, str kind, Tensor? weight, Tensor? bias, float eps, "
    "int groups, Tensor? scale, Tensor? shift, str? activation",
    "activation_dual": "Tensor x, Tensor x_t, str kind",
}
PLAIN: dict[str, Callable[..., Pair]] = {
    "attention_dual": attention_plain,
    "norm_dual": norm_plain,
    "activation_dual": activation_plain,
}

_library = torch.library.Library("reg_engine", "FRAGMENT")
for _name, _arguments in ARGUMENTS.items():
    for _schema in (
        f"{_name}({_arguments}, str? backend=None) -> (Tensor, Tensor)",
        f"{_name}.into({_arguments}, Tensor(a!) out, Tensor(b!) out_t, str? backend=None) -> ()",
    ):
        _library.define(_schema, tags=(torch.Tag.pt2_compliant_tag,))


def new_outputs(name: str, *args: Any) -> Pair:
    """Empty tensors for the results of an op."""
    if name == "attention_dual":
        q, v = args[0], args[2]
        rows = next(t for t in args[3:6] if t is not None).shape[0]
        shape = q.shape[2], q.shape[1], v.shape[3]
        # A model that puts the heads next to each other again copies nothing.
        out, out_t = q.new_empty(q.shape[0], *shape), q.new_empty(rows, *shape)
        return out.transpose(1, 2), out_t.transpose(1, 2)
    x, x_t, kind = args[:3]
    if kind in GATED:
        size = x.shape[-1] // 2
        return x.new_empty(*x.shape[:-1], size), x.new_empty(*x_t.shape[:-1], size)
    return torch.empty_like(x), torch.empty_like(x_t)


def call(name: str, args: tuple[Any, ...], out: Pair | None, backend: str | None) -> Pair:
    """The registered op."""
    op = getattr(torch.ops.reg_engine, name)
    if out is None:
        result: Pair = op.default(*args, backend)
        return result
    op.into(*args, *out, backend)
    return out


def register(run: Callable[[str, tuple[Any, ...], Pair, str | None], Pair]) -> None:
    """Give the ops their implementation: `run(name, arguments, where to write, backend)`."""
    for name, arguments in ARGUMENTS.items():
        size = len(arguments.split(","))
        _library.impl(name, _returning(name, size, run), "CompositeExplicitAutograd")
        _library.impl(name, _at_autograd(name, size), "Autograd", with_keyset=True)
        _library.impl(f"{name}.into", _writing(name, size, run), "CompositeExplicitAutograd")
        fake = _faked(name, size)
        torch.library.register_fake(f"reg_engine::{name}", fake, lib=_library)
        torch.library.register_fake(f"reg_engine::{name}.into", _nothing, lib=_library)
        torch.library.register_vmap(f"reg_engine::{name}", _vmapped(name), lib=_library)


def _returning(name: str, size: int, run: Callable[..., Pair]) -> Callable[..., Pair]:
    def implementation(*args: Any) -> Pair:
        given, backend = args[:size], (*args[size:], None)[0]
        return run(name, given, new_outputs(name, *given), backend)

    return implementation


def _writing(name: str, size: int, run: Callable[..., Pair]) -> Callable[..., None]:
    def implementation(*args: Any) -> None:
        run(name, args[:size], (args[size], args[size + 1]), (*args[size + 2 :], None)[0])

    return implementation


def _at_autograd(name: str, size: int) -> Callable[..., Pair]:
    op = getattr(torch.ops.reg_engine, name).default
    below = torch._C._after_autograd_keyset

    def implementation(keyset: Any, *args: Any) -> Pair:
        if differentiates(*(a for a in args if isinstance(a, Tensor))):
            return PLAIN[name](*args[:size])
        with torch._C._AutoDispatchBelowAutograd():
            result: Pair = op.redispatch(keyset & below, *args)
        return result

    return implementation


def _faked(name: str, size: int) -> Callable[..., Pair]:
    return lambda *args: new_outputs(name, *args[:size])


def _nothing(*args: Any) -> None:
    return None


def _vmapped(name: str) -> Callable[..., tuple[Pair, tuple[int, int]]]:
    """The op for each member of a batch in turn: none of torch's transforms comes here often."""
    op = getattr(torch.ops.reg_engine, name).default

    def rule(
        info: Any, in_dims: tuple[int | None, ...], *args: Any
    ) -> tuple[Pair, tuple[int, int]]:
        dims = list(zip(args, in_dims, strict=True))
        found = [
            op(*(a if dim is None else a.select(dim, i) for a, dim in dims))
            for i in range(info.batch_size)
        ]
        return (torch.stack([f[0] for f in found]), torch.stack([f[1] for f in found])), (0, 0)

    return rule


def count_flops() -> None:
    """Tell torch's FlopCounterMode, if it is loaded, what attention costs.

    It brings Triton along, so that nothing imports it here; one that counts already has a table of
    its own.
    """
    counter = sys.modules.get("torch.utils.flop_counter")
    if counter is None:
        return
    op = torch.ops.reg_engine.attention_dual
    if op not in counter.flop_registry:
        counter.register_flop_formula(op)(_flops)
    for mode in _get_current_dispatch_mode_stack():
        if hasattr(mode, "counter"):
            mode.counter.flop_registry.setdefault(op, counter.flop_registry[op])


def _flops(*shapes: Any, out_shape: Any = None) -> int:
    return attention_flops(*shapes[:6])
