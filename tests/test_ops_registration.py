"""Every public op under every kind of autodiff, tracing and batching: right, or it raises.

`route` is the function of ops/door.py, or the registered op. With `backend=` of a launcher that
would be wrong under autodiff, the plain formula must have been taken instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as fwAD
from op_cases import OPS, arguments, differentiable, door, registered, twin
from torch import Tensor, nn

from reg_engine.ops import door as ops
from reg_engine.ops import formulas
from reg_engine.ops.coefficients import FIRST_B

ROUTES = {"door": door, "registered": registered}
routes = pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
every_op = pytest.mark.parametrize("name", OPS)


@pytest.fixture(autouse=True)
def launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """csrc as if it were built, writing into `out`: opaque to autograd, as every launcher is."""

    def op(name: str) -> Callable[..., None]:
        def run(*args: Any) -> None:
            *given, out = (a.detach() if isinstance(a, Tensor) else a for a in args)
            if name == "guided_step":
                own = dict(zip(formulas.STEP_OPTIONS, given[4:], strict=True))
                out.copy_(twin(name)(*given[:4], **own))
            else:
                out.copy_(twin(name)(*given).to(out.dtype))

        return run

    monkeypatch.setattr(ops.extension, "load", lambda: {"cpu": "loaded"})
    monkeypatch.setattr(ops.extension, "op", op)
    ops._automatic.cache_clear()
    ops._launcher.cache_clear()
    ops._proven.clear()
    yield
    monkeypatch.undo()
    ops._automatic.cache_clear()
    ops._launcher.cache_clear()
    ops._proven.clear()


def by(function: Callable[..., Tensor], name: str) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """`function` of the tensors to differentiate by, and those tensors."""
    keys, given = differentiable(name)

    def call(*tensors: Tensor) -> Tensor:
        return function(**{**given, **dict(zip(keys, tensors, strict=True))})

    return call, [given[key] for key in keys]


def tangents(like: list[Tensor]) -> list[Tensor]:
    g = torch.Generator().manual_seed(11)
    return [torch.randn(t.shape, generator=g, dtype=t.dtype) for t in like]


@routes
@every_op
def test_the_launcher_runs_when_nothing_differentiates(
    name: str, route: Callable[[str], Any]
) -> None:
    assert ops.resolve("cpu") == "csrc"
    assert torch.allclose(route(name)(**arguments(name)), twin(name)(**arguments(name)))
    assert (name, "csrc", "cpu") in ops._proven


@routes
@every_op
def test_backward_and_double_backward(name: str, route: Callable[[str], Any]) -> None:
    call, at = by(route(name), name)
    at = [t.requires_grad_() for t in at]
    assert torch.autograd.gradcheck(call, at)
    assert torch.autograd.gradgradcheck(call, at)


@routes
@every_op
def test_forward_mode(name: str, route: Callable[[str], Any]) -> None:
    call, at = by(route(name), name)
    wanted, at_twin = by(twin(name), name)
    value, tangent = torch.func.jvp(wanted, tuple(at_twin), tuple(tangents(at)))
    found = torch.func.jvp(call, tuple(at), tuple(tangents(at)))
    assert torch.allclose(found[0], value) and torch.allclose(found[1], tangent)
    assert tangent.abs().max() > 0.1
    with fwAD.dual_level():
        duals = [fwAD.make_dual(a, t) for a, t in zip(at, tangents(at), strict=True)]
        dual = fwAD.unpack_dual(call(*duals))
        assert torch.allclose(dual.tangent, tangent)


@routes
@every_op
def test_functional_transforms_compose(name: str, route: Callable[[str], Any]) -> None:
    call, at = by(route(name), name)
    wanted, _ = by(twin(name), name)

    def hessian_product(function: Callable[..., Tensor]) -> Tensor:
        def loss(x: Tensor) -> Tensor:
            return function(x, *at[1:]).square().sum()

        return torch.func.jvp(torch.func.grad(loss), (at[0],), (tangents(at)[0],))[1]

    assert torch.allclose(hessian_product(call), hessian_product(wanted))
    _, pull = torch.func.vjp(call, *at)
    _, pull_twin = torch.func.vjp(wanted, *at)
    cotangent = torch.ones_like(wanted(*at))
    for a, b in zip(pull(cotangent), pull_twin(cotangent), strict=True):
        assert torch.allclose(a, b)


@routes
@every_op
def test_vmap_batches(name: str, route: Callable[[str], Any]) -> None:
    """The first two arguments batched, one in dim 0 and one in dim 1; the others shared."""
    call, at = by(route(name), name)
    wanted, _ = by(twin(name), name)
    first = torch.stack([at[0], 2 * at[0], -at[0]], 0)
    second = torch.stack([at[1], at[1] + 1, at[1]], 1)
    found = torch.vmap(lambda a, b: call(a, b, *at[2:]), in_dims=(0, 1))(first, second)
    for i in range(3):
        assert torch.allclose(found[i], wanted(first[i], second[:, i], *at[2:]))


def test_vmap_of_a_step_writes_each_ring() -> None:
    given = arguments("guided_step")
    rings = torch.stack([given["history"], given["history"] + 1], 2)  # (H, B, 2, ...)
    wanted = [rings[:, :, i].clone() for i in range(2)]
    x = torch.stack([given["x"], -given["x"]])

    def step(x: Tensor, history: Tensor) -> Tensor:
        return registered("guided_step")(**{**given, "x": x, "history": history})

    found = torch.vmap(step, in_dims=(0, 2))(x, rings)
    for i in range(2):
        value = twin("guided_step")(**{**given, "x": x[i], "history": wanted[i]})
        assert torch.allclose(found[i], value)
        assert torch.allclose(rings[:, :, i], wanted[i])


@pytest.mark.parametrize("shared", ["table", "step", "history"])
def test_vmap_refuses_what_it_cannot_batch(shared: str) -> None:
    given = arguments("guided_step")
    batched = {"x": torch.stack([given["x"]] * 2)}
    if shared != "history":
        batched[shared] = torch.stack([given[shared]] * 2)
    rest = {key: value for key, value in given.items() if key not in batched}

    def step(*own: Tensor) -> Tensor:
        return registered("guided_step")(**rest, **dict(zip(batched, own, strict=True)))

    with pytest.raises(RuntimeError, match=shared):
        torch.vmap(step)(*batched.values())


@every_op
def test_opcheck(name: str) -> None:
    given = arguments(name, torch.float32)
    if name == "reduce":
        given["w"] = None
    order = [a.name for a in registered(name)._schema.arguments if a.name in given]
    torch.library.opcheck(registered(name), [given[key] for key in order])
    keys, given = differentiable(name)
    given = {k: v.requires_grad_() if k in keys and v is not None else v for k, v in given.items()}
    torch.library.opcheck(registered(name), [given[key] for key in order])


@pytest.mark.parametrize("backend", ["reference", "csrc"])
@every_op
def test_compiled_without_a_break(name: str, backend: str) -> None:
    call = torch.compile(
        lambda **given: door(name)(**given, backend=backend), fullgraph=True, backend="aot_eager"
    )
    given, expected = arguments(name), arguments(name)
    assert torch.allclose(call(**given), twin(name)(**expected))
    if name == "guided_step":
        assert torch.allclose(given["history"], expected["history"])


@every_op
def test_another_thread_that_compiles_is_no_compiler_here(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's flag holds for the whole process; a call that nobody traces runs as ever."""
    expected = door(name)(**arguments(name))
    monkeypatch.setattr(torch.compiler, "_is_compiling_flag", True)
    assert torch.compiler.is_compiling()
    assert not formulas.traced(torch.ones(1)) and not formulas.traced(nn.Parameter(torch.ones(1)))
    assert torch.equal(door(name)(**arguments(name)), expected)


@pytest.mark.parametrize("strict", [True, False])
@every_op
def test_exported_as_one_op(name: str, strict: bool) -> None:
    given = {k: v for k, v in arguments(name).items() if k != "history"}
    if name == "guided_step":
        given["table"] = given["table"][:, : FIRST_B + 1]
    tensors = {k: v for k, v in given.items() if isinstance(v, Tensor)}
    rest = {k: v for k, v in given.items() if k not in tensors}

    class Call(nn.Module):
        def forward(self, **tensors: Tensor) -> Tensor:
            return door(name)(**tensors, **rest)

    program = torch.export.export(Call(), (), tensors, strict=strict)
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert f"reg_engine.{name}.default" in called
    assert torch.equal(program.module()(**tensors), door(name)(**given))


@every_op
def test_compiled_gradients(name: str) -> None:
    call, at = by(door(name), name)
    wanted, _ = by(twin(name), name)
    at = [t.requires_grad_() for t in at]
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(*at).square().sum(), at)
    for a, b in zip(found, torch.autograd.grad(wanted(*at).square().sum(), at), strict=True):
        assert torch.allclose(a, b)
