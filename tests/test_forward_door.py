"""`reg_engine.forward.jvp`: arguments, tangents, modes and errors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from forward_ad import jvp as oracle
from torch import Tensor, nn

from reg_engine.errors import EstimatorError, InputError
from reg_engine.forward import Moving, Product, jvp, scale_for


class Net(nn.Module):
    """Depends on everything it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(6, 8), nn.Linear(8, 6)
        self.text, self.drop = nn.Linear(5, 8), nn.Dropout(0.4)
        self.double().eval().requires_grad_(False)

    def forward(
        self,
        x: Tensor,
        t: Tensor | None = None,
        *,
        cond: Any = None,
        scales: Tensor | None = None,
    ) -> Tensor:
        self.seen = len(x)
        h = self.enter(x) if t is None else self.enter(x) * t.cos()[:, None]
        if cond is not None:
            h = h + self.text(cond["text"][0]) * cond["gate"] + cond["name"].count("a")
        if scales is not None:
            h = h * scales[:3].sum() + scales.sum()
        return self.leave(self.drop(torch.tanh(h)))


torch.manual_seed(11)
NET = Net()
X, V = torch.randn(2, 3, 6, dtype=torch.float64).unbind(0)
T, DT = torch.rand(3, dtype=torch.float64), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
TEXT, GATE = torch.randn(3, 5, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
COND = {"text": (TEXT,), "gate": GATE, "name": "banana"}
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


def agrees(found: Product, value: Tensor, tangent: Tensor) -> None:
    torch.testing.assert_close(found.value, value, **CLOSE)
    torch.testing.assert_close(found.tangent, tangent, **CLOSE)


def test_value_and_tangent() -> None:
    found = jvp(NET, X, V)
    value, tangent = found
    agrees(found, *oracle(NET, X, V))
    assert value is found.value and tangent is found.tangent and found.fallbacks == {}
    assert not value.requires_grad and not tangent.requires_grad


def test_rows_are_repeated_wherever_they_are() -> None:
    found = jvp(NET, X, V, T, cond=COND)
    assert NET.seen == 6
    agrees(found, *oracle(lambda x: NET(x, T, cond=COND), X, V))
    agrees(jvp(NET, X, V, t=T), *oracle(lambda x: NET(x, T), X, V))
    assert COND["text"][0] is TEXT


def test_shared_arguments_have_no_rows() -> None:
    scales = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    wanted = oracle(lambda x: NET(x, scales=scales), X, V)
    agrees(jvp(NET, X, V, shared=["scales"], scales=scales), *wanted)
    wrong = jvp(NET, X, V, scales=scales)
    assert (wrong.value - wanted[0]).norm() > 1e-3
    agrees(jvp(NET, X, V, shared=["scales"]), *oracle(NET, X, V))


def test_time_moves_too() -> None:
    value, tangent = torch.func.jvp(NET, (X, T), (V, DT))
    agrees(jvp(NET, X, V, Moving(T, DT)), value, tangent)
    agrees(jvp(NET, X, V, t=Moving(T, DT)), value, tangent)
    still = jvp(NET, X, torch.zeros_like(X), Moving(T, DT))
    agrees(still, value, torch.func.jvp(NET, (X, T), (0 * V, DT))[1])
    cond = {"text": [Moving(TEXT, TEXT.cos())], "gate": GATE, "name": "a"}

    def call(x: Tensor, text: Tensor) -> Tensor:
        return NET(x, cond={**cond, "text": [text]})

    agrees(jvp(NET, X, V, cond=cond), *torch.func.jvp(call, (X, TEXT), (V, TEXT.cos())))


def test_the_size_of_the_tangent_is_taken_out() -> None:
    wanted = jvp(NET, X, V)
    for factor in (2.0**-400, 2.0**-20, 2.0**60, -1.0):
        found = jvp(NET, X, V * factor)
        assert torch.equal(found.value, wanted.value)
        assert torch.equal(found.tangent, wanted.tangent * factor)
    torch.testing.assert_close(jvp(NET, X, V * 0.3).tangent, wanted.tangent * 0.3, **CLOSE)
    assert not jvp(NET, X, 0 * V).tangent.any()
    at_zero = jvp(NET, 0 * X, V)
    agrees(at_zero, *oracle(NET, 0 * X, V))


def test_float16_has_room_for_any_tangent() -> None:
    assert scale_for(torch.float16) == 1 and scale_for(torch.bfloat16) == scale_for(torch.float32)
    net = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 64))
    net.requires_grad_(False)
    x, v = torch.randn(2, 4, 64).unbind(0)
    wanted = oracle(net.double(), x.double(), v.double())[1]
    net.half()
    for size in (1e-3, 1.0, 3e3):
        found = jvp(net, x.half(), (v * size).half()).tangent.double()
        assert (found - wanted * size).norm() < 0.01 * (wanted * size).norm()


def test_dropout_draws_as_the_call_by_itself() -> None:
    net = Net().train()
    for module in (net, nn.Sequential(nn.Dropout(0.3), nn.Linear(6, 6).double())):
        torch.manual_seed(5)
        found = jvp(module, X, V)
        after = torch.rand(())
        torch.manual_seed(5)
        plain = module(X)
        assert torch.equal(after, torch.rand(()))
        torch.testing.assert_close(found.value, plain.detach(), **CLOSE)
        torch.manual_seed(5)
        _, tangent = torch.func.jvp(module, (X,), (V,))
        torch.testing.assert_close(found.tangent, tangent.detach(), **CLOSE)
    assert net.training


def test_any_mode_around_it() -> None:
    wanted = jvp(NET, X, V)
    with torch.inference_mode():
        inside = jvp(NET, X, V)
        again = jvp(lambda x: F.normalize(NET(x)), X * 1, V * 1)
    agrees(inside, wanted.value, wanted.tangent)
    agrees(again, *oracle(lambda x: F.normalize(NET(x)), X, V))
    asked = jvp(NET, X.clone().requires_grad_(), V.clone().requires_grad_())
    assert asked.value.grad_fn is None and torch.equal(asked.tangent, wanted.tangent)
    with torch.enable_grad():
        assert jvp(nn.Linear(6, 6).double(), X, V).tangent.grad_fn is None


def test_threads_do_not_meet() -> None:
    factors = [1.0, 2.0, 3.0, 4.0] * 4
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda f: jvp(NET, X * f, V, T), factors))
    for factor, product in zip(factors, found, strict=True):
        agrees(product, *oracle(lambda x: NET(x, T), X * factor, V))


@pytest.mark.parametrize(
    ("x", "tangent", "name"),
    [
        (X, V[:2], "tangent"),
        (X, V.float(), "tangent"),
        (X, V.to("meta"), "tangent"),
        (X.long(), V, "x"),
        (X, V.long(), "tangent"),
        (X, None, "tangent"),
        (X.tolist(), V, "x"),
        (X[0, 0], V[0, 0], "x"),
    ],
)
def test_wrong_input_is_named(x: Any, tangent: Any, name: str) -> None:
    with pytest.raises(InputError, match=f"^{name}: is "):
        jvp(NET, x, tangent)


def test_a_moving_argument_has_two_tensors_of_one_shape() -> None:
    for tangent in (DT[:2], None, 1.0):
        with pytest.raises(InputError, match="Moving: has no two tensors of one shape"):
            Moving(T, tangent)  # type: ignore[arg-type]


def test_a_moving_argument_has_the_rows_of_x() -> None:
    with pytest.raises((InputError, EstimatorError)):
        jvp(NET, X, V, Moving(T[:2], DT[:2]))


OUTPUTS = {
    "two tensors": lambda x: (x, x),
    "a constant": lambda x: torch.ones(6, 6),
    "the batch behind": lambda x: x.t(),
    "other rows": lambda x: x.repeat_interleave(2, 0),
    "a class": lambda x: x.argmax(1),
    "numbers": lambda x: x.tolist(),
    "nothing": lambda x: None,
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_that_are_no_rows_are_refused(name: str) -> None:
    with pytest.raises(EstimatorError, match="cannot serve this network"):
        jvp(OUTPUTS[name], X, V)


def test_errors_of_the_network_are_told() -> None:
    def broken(x: Tensor) -> Tensor:
        raise KeyError("no such block")

    with pytest.raises(EstimatorError, match="no such block") as caught:
        jvp(broken, X, V)
    assert isinstance(caught.value.__cause__, KeyError)

    def full(x: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(torch.OutOfMemoryError):
        jvp(full, X, V)


def test_a_network_that_returns_more_than_a_tensor_is_told_how_to_be_wrapped() -> None:
    x = torch.randn(3, 4)
    for output in (lambda x: (x, x), lambda x: {"sample": x}):
        with pytest.raises(EstimatorError, match="returns a (tuple|dict), not one tensor. Give a"):
            jvp(output, x, x)
