"""The door of the dual ops, and the registered ops: autodiff, tracing, fake tensors, arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as fwAD
from dual_cases import F64, Attention, arguments, rand
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from reg_engine import ops
from reg_engine.errors import BackendError
from reg_engine.ops import duals
from reg_engine.ops.duals import door as doors
from reg_engine.ops.duals import registration

OPS = ("attention_dual", "norm_dual", "activation_dual")
every_op = pytest.mark.parametrize("name", OPS)


def door(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(ops, name)
    return function


def registered(name: str) -> Callable[..., Any]:
    """torch.ops.reg_engine.<name> with the door's keywords."""
    op = getattr(torch.ops.reg_engine, name).default
    defaults = {"eps": 1e-5, "groups": 1}
    names = [a.name for a in op._schema.arguments]
    return lambda **given: op(*({**defaults, **given}.get(key) for key in names))


ROUTES = {"door": door, "registered": registered}
routes = pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)


def by(function: Callable[..., Any], name: str) -> tuple[Callable[..., Any], list[Tensor]]:
    """`function` of its floating tensors, and these."""
    given = arguments(name)
    keys = [k for k, v in given.items() if isinstance(v, Tensor) and v.is_floating_point()]

    def call(*tensors: Tensor) -> Any:
        return function(**{**given, **dict(zip(keys, tensors, strict=True))})

    return call, [given[key] for key in keys]


def same(found: Any, wanted: Any) -> bool:
    return all(torch.allclose(a, b) for a, b in zip(found, wanted, strict=True))


@routes
@every_op
def test_fast_and_elementary_agree(name: str, route: Callable[[str], Any]) -> None:
    given = arguments(name)
    with torch.no_grad():
        fast = route(name)(**given)
    first = next(iter(given))
    plain = route(name)(**{**given, first: given[first].clone().requires_grad_()})
    assert same(fast, plain) and all(v.requires_grad for v in plain)
    assert not any(v.requires_grad for v in fast)


@routes
@every_op
def test_gradients(name: str, route: Callable[[str], Any]) -> None:
    call, at = by(route(name), name)
    assert torch.autograd.gradcheck(call, [t.requires_grad_() for t in at], check_forward_ad=True)


@routes
@every_op
def test_forward_derivatives_of_both(name: str, route: Callable[[str], Any]) -> None:
    """The value's derivative along the tangents is the op's own second result."""
    call, at = by(route(name), name)
    given = arguments(name)
    along = [given.get(f"{key}_t") for key, v in given.items() if isinstance(v, Tensor)]
    directions = [
        torch.zeros_like(t) if a is None else a[: len(t)] for t, a in zip(at, along, strict=False)
    ]
    (_, wanted), (tangent, _) = torch.func.jvp(call, tuple(at), tuple(directions))
    assert torch.allclose(tangent, wanted[: len(tangent)]) and tangent.abs().max() > 0.1
    with fwAD.dual_level():
        pairs = [fwAD.make_dual(t, d) for t, d in zip(at, directions, strict=True)]
        assert torch.allclose(fwAD.unpack_dual(call(*pairs)[0]).tangent, tangent)


@routes
@every_op
def test_vmap_batches(name: str, route: Callable[[str], Any]) -> None:
    call, at = by(route(name), name)
    first, second = torch.stack([at[0], 2 * at[0]], 1), torch.stack([at[1], -at[1]])
    found = torch.vmap(lambda a, b: call(a, b, *at[2:]), in_dims=(1, 0))(first, second)
    for i in range(2):
        assert same([v[i] for v in found], call(first[:, i], second[i], *at[2:]))


@every_op
def test_opcheck(name: str) -> None:
    given = arguments(name, torch.float32)
    op = getattr(torch.ops.reg_engine, name)
    defaults = {"eps": 1e-5, "groups": 1}
    listed = [{**defaults, **given}.get(a.name) for a in op.default._schema.arguments[:-1]]
    torch.library.opcheck(op.default, listed)
    out = [torch.empty_like(v) for v in op.default(*listed)]
    torch.library.opcheck(op.into, [*listed, *out])


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Triton as if it worked here: plain torch behind the launcher's name."""
    ran: list[str] = []

    class Module:
        @staticmethod
        def unable(*args: Any) -> str:
            return "no float64" if args[0].dtype == F64 else ""

    def load(name: str) -> Any:
        def launch(*args: Any) -> None:
            ran.append(name)
            doors.FAST[name](*args[:-2], args[-2:])

        module = Module()
        module.launch = launch  # type: ignore[attr-defined]
        return module

    monkeypatch.setattr(doors, "_launcher", load)
    monkeypatch.setattr(doors, "resolve", lambda kind, backend: backend or "triton")
    monkeypatch.setattr(doors, "_failed", set())
    yield ran


@pytest.mark.parametrize("backend", ["reference", "triton"])
@pytest.mark.parametrize("into", [False, True])
@every_op
def test_compiled_without_a_break(name: str, into: bool, backend: str, launcher: list[str]) -> None:
    given = arguments(name, torch.float32)
    wanted = door(name)(**given, backend="reference")
    rows = [len(w) for w in wanted]

    def call(**given: Any) -> Any:
        buffer = torch.zeros(sum(rows) + 1, *wanted[0].shape[1:])
        out = (buffer[: rows[0]], buffer[rows[0] + 1 :]) if into else None
        found = door(name)(**given, out=out, backend=backend)
        return (*found, buffer)

    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    *found, buffer = compiled(**given)
    assert same(found, wanted)
    assert launcher == ([name] if backend == "triton" else [])
    if into:
        assert same((buffer[: rows[0]], buffer[rows[0] + 1 :]), wanted)
        assert (buffer[rows[0]] == 0).all()


@every_op
def test_compiled_gradients_are_those_of_the_formula(name: str, launcher: list[str]) -> None:
    call, at = by(lambda **given: door(name)(**given, out=None), name)
    at = [t.requires_grad_() for t in at]
    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    found, wanted = (
        torch.autograd.grad(sum(v.square().sum() for v in f(*at)), at) for f in (compiled, call)
    )
    assert same(found, wanted) and launcher == []


@every_op
def test_compiled_gradients_of_what_was_given_to_write_to(name: str, launcher: list[str]) -> None:
    """The opaque op that writes would lose them."""

    given = arguments(name)
    keys = [k for k, v in given.items() if isinstance(v, Tensor) and v.is_floating_point()]
    like = door(name)(**given, backend="reference")

    def total(*tensors: Tensor) -> Tensor:
        out = tuple(torch.zeros_like(v) for v in like)
        own = {**given, **dict(zip(keys, tensors, strict=True))}
        return sum(v.square().sum() for v in door(name)(**own, out=out))

    at = [given[key].requires_grad_() for key in keys]
    torch._dynamo.reset()
    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    found, wanted = (torch.autograd.grad(f(*at), at) for f in (compiled, total))
    assert same(found, wanted) and launcher == []


@every_op
def test_the_launcher_is_left_where_it_cannot_start(name: str, launcher: list[str]) -> None:
    given = arguments(name, torch.float32)
    wanted = door(name)(**given, backend="reference")
    assert same(door(name)(**given), wanted) and launcher == [name]
    assert same(door(name)(**arguments(name)), door(name)(**arguments(name), backend="reference"))
    assert launcher == [name]  # float64 went to plain torch, unasked
    with pytest.raises(BackendError, match="no float64"):
        door(name)(**arguments(name), backend="triton")


@every_op
def test_what_fails_to_start_is_not_asked_again(
    name: str, launcher: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = doors._launcher(name)

    def fail(*args: Any) -> None:
        launcher.append("failed")
        raise RuntimeError("out of resources")

    module.launch = fail
    monkeypatch.setattr(doors, "_launcher", lambda name: module)
    given = arguments(name, torch.float32)
    wanted = door(name)(**given, backend="reference")
    with pytest.warns(UserWarning, match="out of resources"):
        assert same(door(name)(**given), wanted)
    assert same(door(name)(**given), wanted) and launcher == ["failed"]
    with pytest.raises(RuntimeError, match="out of resources"):
        door(name)(**given, backend="triton")


def test_csrc_has_none() -> None:
    with pytest.raises(BackendError, match="csrc"):
        ops.activation_dual(rand(2, 3), rand(2, 3), "silu", backend="csrc")


@pytest.mark.parametrize("kind", ["fake", "meta"])
@pytest.mark.parametrize("along", ["qkv", "q", "v", "kv"])
def test_flops_on_tensors_without_data(along: str, kind: str) -> None:
    case = Attention(2, 3, 1, 16, 24, 8, along=along, count=2)
    given = case.given()
    one = 2 * 2 * 3 * 16 * 24 * 8  # of one product
    wanted = one * (2 + 2 * {"qkv": 4, "q": 2, "v": 1, "kv": 3}[along])
    mode = FakeTensorMode()
    to = mode.from_tensor if kind == "fake" else (lambda v: v.to("meta"))
    shapes = {key: to(v) if isinstance(v, Tensor) else v for key, v in given.items()}
    for out in (False, True):
        with mode if kind == "fake" else nullcontext(), FlopCounterMode(display=False) as counter:
            target = [torch.empty_like(shapes["q"])] * 2 if out else None
            if target:
                target[1] = torch.cat([target[1]] * 2)
            found = ops.attention_dual(**shapes, out=target)
        assert found[0].shape == (2, 3, 16, 8) and found[1].shape == (4, 3, 16, 8)
        assert counter.get_total_flops() == wanted


@every_op
def test_fake_results_are_like_the_real_ones(name: str) -> None:
    given = arguments(name, torch.bfloat16)
    real = door(name)(**given)
    with FakeTensorMode() as mode:
        fake = door(name)(
            **{k: mode.from_tensor(v) if isinstance(v, Tensor) else v for k, v in given.items()}
        )
    for a, b in zip(fake, real, strict=True):
        assert (a.shape, a.stride(), a.dtype) == (b.shape, b.stride(), b.dtype)


def test_one_module_says_what_exists() -> None:
    assert set(OPS) == set(duals.__all__) == set(registration.ARGUMENTS) == set(doors.FAST)
