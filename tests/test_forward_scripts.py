"""What passes by the class of a tensor: right and counted, or refused by name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from forward_ad import jvp as oracle
from torch import Tensor
from torch.jit import ScriptFunction
from torch.utils.dlpack import from_dlpack

from reg_engine.errors import EstimatorError
from reg_engine.forward import jvp
from reg_engine.forward.scripts import LOSING as PLACES

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
X = torch.randn(4, 6, dtype=torch.float64)


def wave(x: Tensor) -> Tensor:
    return x.sin() * 2


def scored(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / x.var(0, unbiased=False).sqrt()


def functions() -> list[ScriptFunction]:
    return [torch.jit.script(wave), torch.jit.trace(wave, X)]


def test_a_branch_by_a_scripted_function_is_not_lost() -> None:
    value, tangent = oracle(lambda x: x.cos() + wave(x), X, X.cos())
    before = ScriptFunction.__call__
    for function in functions():
        found = jvp(lambda x, f=function: x.cos() + f(x), X, X.cos())
        torch.testing.assert_close(found.value, value, rtol=1e-12, atol=0)
        torch.testing.assert_close(found.tangent, tangent, rtol=1e-10, atol=1e-12)
        assert found.fallbacks == {"wave": 1} or "forward" in str(found.fallbacks)
        plain = jvp(lambda x, f=function: x * f(torch.ones(6).double()), X, X.cos())
        assert plain.fallbacks == {}
        with pytest.raises(EstimatorError, match="has no rule, and strict=True"):
            jvp(lambda x, f=function: x.cos() + f(x), X, X.cos(), strict=True)
    assert ScriptFunction.__call__ == before


def test_statistics_that_copies_of_the_rows_share_are_found() -> None:
    """Twice the same rows have the mean and the deviation of the rows."""
    with pytest.raises(EstimatorError, match="network: scored .* depend on other rows"):
        jvp(torch.jit.script(scored), X, X)


LOSING: dict[str, Callable[[Tensor], Tensor]] = {
    "torch.tensor": lambda x: torch.tensor(x),
    "torch.as_tensor": lambda x: torch.as_tensor(x, dtype=torch.float32),
    "torch.asarray": lambda x: torch.asarray(x, copy=True),
    "nested_tensor": lambda x: torch.nested.nested_tensor([x])[0],
    "to_dlpack": lambda x: from_dlpack(torch.utils.dlpack.to_dlpack(x)),
    "vmap": lambda x: torch.vmap(wave)(x),
    "torch.func": lambda x: torch.func.grad(lambda y: y.sin().sum())(x),
    "as_subclass": lambda x: x.as_subclass(Tensor),
}


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("name", LOSING)
def test_what_loses_the_tangent_is_refused_beside_a_branch_that_keeps_it(name: str) -> None:
    with pytest.raises(EstimatorError, match=f"network: {name} .*loses|copies"):
        jvp(lambda x: x + LOSING[name](x), X, X)
    assert not any(hasattr(getattr(*place), "asks") for place in PLACES)


def test_constants_and_rows_as_they_are_pass() -> None:
    def net(x: Tensor) -> Tensor:
        rate = torch.tensor([2.0]) * torch.vmap(wave)(torch.ones(6).double())
        return torch.as_tensor(x) * rate + torch.asarray(x)

    torch.testing.assert_close(jvp(net, X, X.cos()).tangent, net(X.cos()))


def test_a_product_in_compiled_code() -> None:
    """Also of a network that is compiled itself."""
    torch._dynamo.reset()
    for inner in (wave, torch.compile(wave, backend="eager")):

        def outer(x: Tensor, t: Tensor, inner: Callable[[Tensor], Tensor] = inner) -> Tensor:
            return jvp(lambda y: y.cos() + inner(y), x, t).tangent * 2

        found = torch.compile(outer, backend="eager")(X, X.cos())
        torch.testing.assert_close(found, 2 * oracle(lambda x: x.cos() + wave(x), X, X.cos())[1])


def test_the_first_product_of_a_process_can_be_compiled() -> None:
    code = """if True:
        import torch
        from reg_engine.forward import jvp
        whole = torch.compile(backend="eager", fullgraph=True)
        run = whole(lambda x, t: jvp(torch.sin, x, t).tangent)
        assert torch.allclose(run(torch.zeros(2, 3), torch.ones(2, 3)), torch.ones(2, 3))
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_threads_share_the_change() -> None:
    function, wanted = torch.jit.script(wave), oracle(lambda x: x + wave(x), X, X.cos())[1]
    before = ScriptFunction.__call__
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: jvp(lambda x: x + function(x), X, X.cos()), range(16)))
    for product in found:
        torch.testing.assert_close(product.tangent, wanted, rtol=1e-10, atol=1e-12)
    assert ScriptFunction.__call__ == before
