"""Ops without a rule: right and counted, or refused by name; never a tangent that is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from forward_ad import jvp as oracle
from forward_cases import Moves, Rows, Table, check_all, example
from torch import Tensor, nn

from reg_engine.errors import EstimatorError
from reg_engine.forward import jvp
from reg_engine.forward.fallback import counted


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


X, Y = Moves((2, 3, 4)), Moves((2, 3, 4))
TABLE: Table = {}


def enter(names: str, *args: Any, **kwargs: Any) -> None:
    example(TABLE, names, *args, fallback=True, twin=False, **kwargs)


enter("addcmul addcdiv", X, Y, noise(3, 4))
enter("addcmul_ addcdiv_", X, Y, noise(3, 4).exp(), homes=(Tensor,))
enter("lerp lerp_", X, Rows((2, 3, 4)), 0.3)
enter("var std", X, 1, axis=(0, 2))
enter("var", X, dim=(1, 2), keepdim=True)
enter("topk", X, 2, 1, axis=(0, 2))
enter("sort cummax median", X, dim=1, axis=(0, 2))
enter("max min", X, 1)
enter("amax amin prod cumprod logcumsumexp", X, 1)
enter("maximum minimum atan2 fmax hypot", X, Y)
enter("maximum fmod remainder", X, noise(4).exp())
enter("__mod__", X, 0.7)
enter("cosine_similarity", X, Y, 1)
enter("cosine_similarity", X, Y, dim=0, axis=1)
enter("selu celu tanhshrink softsign hardshrink", X, homes=(F,))
enter("glu softmin", X, 2, homes=(F,))
enter("prelu", X, noise(3), homes=(F,))
enter("bilinear", Moves((2, 3)), Moves((2, 4)), noise(5, 3, 4), noise(5), homes=(F,))
enter("max_pool2d", Moves((2, 3, 4, 6)), 2, homes=(F,))
enter("max_pool1d", X, 2, homes=(F,))
enter("index_add_", X, 1, torch.tensor([0, 2]), Moves((2, 2, 4)), homes=(Tensor,))
enter("scatter_add", X, 1, Rows((2, 2, 4), lambda z: (z > 0).long()), Moves((2, 2, 4)))
enter("sinh cosh tan asinh erfc lgamma", Moves((2, 3, 4), lambda z: z.abs() + 1))
enter("softmax", Moves((2, 4)), None, homes=(F,))
enter("unfold", X, 1, 2, 1, homes=(Tensor,))
enter("hsplit", X, 3, homes=(torch,))
enter("hfft", X, dim=1, homes=(torch.fft,))


@pytest.mark.filterwarnings("ignore:Implicit dimension")
@pytest.mark.parametrize("name", TABLE)
def test_tangents_are_those_of_forward_ad_and_counted(name: str) -> None:
    check_all(TABLE, name)


PLAIN = torch.randn(4, 6, dtype=torch.float64)


def test_calls_are_counted_by_name() -> None:
    found = jvp(lambda x: torch.addcmul(x, x, x).amax(1).lerp(x[:, 0], 0.3), PLAIN, PLAIN)
    assert found.fallbacks == {"addcmul": 1, "amax": 1, "lerp": 1}
    assert jvp(torch.sin, PLAIN, PLAIN).fallbacks == {}
    with counted() as outer:
        jvp(lambda x: x.amax(1), PLAIN, PLAIN)
    assert outer == {}


def test_an_overload_of_an_op_with_a_rule_has_that_rule() -> None:
    for call in (
        lambda x: torch.ops.aten.silu.default(x),
        lambda x: torch.ops.aten.mul.Tensor(x, x),
        lambda x: torch.ops.aten.gelu(x),
    ):
        found = jvp(call, PLAIN, PLAIN, strict=True)
        torch.testing.assert_close(found.tangent, oracle(call, PLAIN, PLAIN)[1])


def test_strict_refuses_what_has_no_rule() -> None:
    for call in (lambda x: x.amax(1), lambda x: F.selu(x), lambda x: torch.addcmul(x, x, x)):
        with pytest.raises(EstimatorError, match="has no rule, and strict=True asks for one"):
            jvp(call, PLAIN, PLAIN, strict=True)


def written(x: Tensor, write: Callable[[Tensor], Any]) -> Tensor:
    y = x * 2
    write(y)
    return y


WRITES: dict[str, Callable[[Tensor], Any]] = {
    "addcmul_": lambda y: y.addcmul_(y.sin(), y.cos()),
    "a part": lambda y: y[:, 1:4].lerp_(y[:, :3].sin(), 0.3),
    "selu": lambda y: F.selu(y, inplace=True),
    "threshold": lambda y: F.threshold(y, 0.1, 0.2, True),
    "index_add_": lambda y: y.index_add_(1, torch.tensor([0, 2]), y[:, :2].sin()),
    "hsplit": lambda y: y.hsplit(2)[0].mul_(3),
    "unfold": lambda y: y.unfold(1, 2, 2)[..., 1].sin_(),
    "index_fill_": lambda y: y.index_fill_(1, torch.tensor([0, 2]), 0.5),
}


@pytest.mark.parametrize("name", WRITES)
def test_what_an_op_writes_into_is_written_into(name: str) -> None:
    def net(x: Tensor) -> Tensor:
        return written(x, WRITES[name])

    value, tangent = oracle(net, PLAIN, PLAIN.cos())
    for inference in (False, True):
        with torch.inference_mode(inference):
            found = jvp(net, PLAIN, PLAIN.cos())
        assert torch.equal(found.value, value) and sum(found.fallbacks.values()) == 1
        torch.testing.assert_close(found.tangent, tangent, rtol=1e-10, atol=1e-12)


BUFFER = torch.zeros(8, 6, dtype=torch.float64)
REFUSED: dict[str, tuple[str, Callable[[Tensor], Any]]] = {
    "softmin": ("depend on other rows", lambda x: F.softmin(x, 0)),
    "gumbel_softmax": ("or on chance", lambda x: F.gumbel_softmax(x, dim=1)),
    "alpha_dropout": ("or on chance", lambda x: F.alpha_dropout(x, 0.5, True)),
    "normal": ("or on chance", lambda x: torch.normal(x, 1.0)),
    "sort": ("along the batch", lambda x: x.sort(0).values),
    "topk": ("along the batch", lambda x: x.topk(1, 0).values),
    "max": ("where the batch went", lambda x: x / x.max()),
    "var": ("where the batch went", lambda x: x.var()),
    "std": ("along the batch", lambda x: x.std(0)),
    "inner": ("where the batch went", lambda x: torch.inner(x, x)),
    "cov": ("where the batch went", lambda x: torch.cov(x)),
    "kron": ("where the batch went", lambda x: torch.kron(x, x)),
    "vstack": ("where the batch went", lambda x: torch.vstack([x, x])),
    "mv": ("where the batch went", lambda x: torch.mv(x.t(), x[:, 0])),
    "cdist": ("fails by itself", lambda x: torch.cdist(x, x)),
    "unique": ("fails by itself", lambda x: torch.unique(x)),
    "scatter_add": ("along the batch", lambda x: x.scatter_add(0, (x > 0).long(), x)),
    "index_add_": ("made without the batch", lambda x: BUFFER.index_add_(1, torch.arange(6), x)),
    "addcmul": ("made without the batch", lambda x: torch.addcmul(x, x, x, out=BUFFER)),
    "maximum": ("different layouts", lambda x: torch.maximum(x[:, :4], x[:, :4].t())),
    "bincount": ("fails by itself", lambda x: torch.bincount(x)),
    "addbmm": ("fails by itself", lambda x: torch.addbmm(x, x, x)),
}


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("name", REFUSED)
def test_what_mixes_rows_or_loses_the_tangent_is_refused(name: str, batch: int) -> None:
    why, call = REFUSED[name]
    x = torch.randn(batch, 6, dtype=torch.float64)
    with pytest.raises(EstimatorError, match=rf"network: {name}\b.*"):
        jvp(call, x, x)
    if batch > 1:
        with pytest.raises(EstimatorError, match=f"network: {name}.*{why}"):
            jvp(call, x, x)
    assert not BUFFER.any()


@torch.library.custom_op("reg_engine_tests::triple", mutates_args=())
def triple(x: Tensor) -> Tensor:
    return x * 3


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.sin() * 2

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g


class Branch(nn.Module):
    def __init__(self, branch: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return x.cos() + self.branch(x)


def test_a_custom_op_without_a_derivative_is_named() -> None:
    with pytest.raises(EstimatorError, match="triple.* in Branch has no rule"):
        jvp(Branch(triple), PLAIN, PLAIN)


def test_a_function_of_autograd_is_differentiated_as_it_computes() -> None:
    found = jvp(Branch(Doubled.apply), PLAIN, PLAIN.cos())
    wanted = oracle(lambda x: x.cos() + x.sin() * 2, PLAIN, PLAIN.cos())[1]
    torch.testing.assert_close(found.tangent, wanted)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_scripts_and_traces() -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.SiLU(), nn.Linear(6, 6)).double().requires_grad_(False)
    wanted = oracle(lambda x: x.cos() + net(x), PLAIN, PLAIN.cos())[1]
    for made in (torch.jit.script(net), torch.jit.trace(net, PLAIN)):
        found = jvp(Branch(made), PLAIN, PLAIN.cos())
        torch.testing.assert_close(found.tangent, wanted)
        assert sum(found.fallbacks.values()) >= 1


def test_compiled_code_of_the_users_runs_as_it_was_written() -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.SiLU()).double().requires_grad_(False)
    wanted = oracle(lambda x: x.cos() + net(x), PLAIN, PLAIN.cos())[1]
    compiled = torch.compile(net, backend="eager")
    for made in (compiled, torch.compile(lambda x: net(x), backend="eager")):
        found = jvp(Branch(made), PLAIN, PLAIN.cos())
        torch.testing.assert_close(found.tangent, wanted)
    before = torch._dynamo.utils.counters["frames"]["ok"]
    torch.testing.assert_close(compiled(PLAIN), net(PLAIN))
    assert torch._dynamo.utils.counters["frames"]["ok"] > before  # compiled, behind the pass


def test_a_forward_derivative_around_it_is_refused() -> None:
    def outer(x: Tensor) -> Tensor:
        return jvp(lambda y: y.amax(1), PLAIN, PLAIN).value + x

    with pytest.raises(EstimatorError, match="amax has no rule, and this process is inside"):
        torch.func.jvp(outer, (PLAIN[:, 0],), (PLAIN[:, 0],))


def test_threads_take_turns_and_count_their_own() -> None:
    started = threading.Barrier(4)

    wanted = [oracle(lambda x, k=k: (x * k).amax(1).sinh(), PLAIN, PLAIN)[1] for k in range(5)]

    def work(k: int) -> tuple[bool, dict[str, int]]:
        started.wait()
        found = [jvp(lambda x: (x * k).amax(1).sinh(), PLAIN, PLAIN) for _ in range(8)]
        return all(torch.allclose(f.tangent, wanted[k]) for f in found), found[0].fallbacks

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(1, 5)))
    assert results == [(True, {"amax": 1, "sinh": 1})] * 4


@torch.library.custom_op("reg_engine_tests::doubled_", mutates_args=("x",))
def doubled_(x: Tensor) -> None:
    x.mul_(2)


@torch.library.custom_op("reg_engine_tests::doubling", mutates_args=("x",))
def doubling(x: Tensor) -> Tensor:
    x.mul_(2)
    return x + 1


@pytest.mark.parametrize("op", [doubled_, doubling])
def test_a_custom_op_that_writes_is_named(op: Any) -> None:
    def net(x: Tensor) -> Tensor:
        y = x * 1
        op(y)
        return y

    with pytest.raises(EstimatorError, match=f"network: {op._name.partition('::')[2]}"):
        jvp(net, PLAIN, PLAIN)
