"""The step of a difference follows what the network computes in, however it is stored or called."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from derivative_cases import Residual, seen, smooth
from torch import Tensor, nn

from reg_engine import Denoiser, Engine, sample
from reg_engine.guidance.references import Unconditional
from reg_engine.networks.frozen import frozen
from reg_engine.networks.point import Point
from reg_engine.rectifiers import DiagonalBatched, FDBatched
from reg_engine.rectifiers.precision import autocast_dtype, measured_precision, precision_of
from reg_engine.schedules import EDM
from reg_engine.solvers import table

LABELS = [3, 7]
CALL = {"scale": 3.0, "solver": "euler", "steps": 4, "progress": False}
F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
RHO = {F64: 1e-6, F32: 1e-2, F16: 0.03, BF16: 0.1}


def autocast(enabled: bool = True) -> torch.autocast:
    return torch.autocast("cpu", BF16, enabled=enabled)


def cast(dtype: torch.dtype, back: bool) -> Callable[[nn.Module], object]:
    """A function around a network of `dtype`; `back` returns the state's dtype."""

    def around(net: nn.Module) -> object:
        def call(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            out = net(x.to(dtype), t.to(dtype), cond)
            return out.to(x.dtype) if back else out

        net.to(dtype)
        return call

    return around


def hidden(net: nn.Module) -> object:
    def call(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        with autocast():
            return net(x, t, cond).float()

    return call


# (what is around the network, the call's context, dtype of the state) -> what it computes in
CASES: dict[str, tuple[Callable[[nn.Module], object], bool, torch.dtype, torch.dtype]] = {
    "as stored": (lambda net: net, False, F32, F32),
    "16 bits stored": (lambda net: net.to(BF16), False, F32, BF16),
    "half stored": (lambda net: net.to(F16), False, F32, F16),
    "float64 stored, float32 state": (lambda net: net.double(), False, F32, F32),
    "float64": (lambda net: net.double(), False, F64, F64),
    "float32 stored, float64 state": (lambda net: net, False, F64, F32),
    "autocast": (lambda net: net, True, F32, BF16),
    "a function of float32": (cast(F32, False), False, F64, F32),
    "a function of float32 that casts back": (cast(F32, True), False, F64, F32),
    "a function of 16 bits": (cast(BF16, False), False, F32, BF16),
    "a function of 16 bits that casts back": (cast(BF16, True), False, F32, BF16),
    "autocast inside": (hidden, False, F32, BF16),
}
MEASURED = ("a function of float32 that casts back", "a function of 16 bits that casts back",
            "autocast inside")  # fmt: skip


def context(active: bool) -> AbstractContextManager[None]:
    return autocast() if active else nullcontext()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rectifier", [FDBatched, DiagonalBatched])
def test_the_step_is_the_one_of_what_is_computed_in(rectifier: type, name: str) -> None:
    around, active, state, computed = CASES[name]
    with frozen([net := Residual()]), context(active):
        model = seen(around(net), modules=() if name in MEASURED else None)
        choices = {"dtype": state, **CALL}
        found = sample(model, LABELS, rectify=rectifier.name, **choices)
        assert torch.equal(
            found.samples,
            sample(model, LABELS, rectify=rectifier(rho=RHO[computed]), **choices).samples,
        )
        if name not in MEASURED:  # known without a measurement, from the call itself
            unchecked = sample(model, LABELS, rectify=rectifier.name, check=False, **choices)
            assert torch.equal(unchecked.samples, found.samples) and unchecked.stats.checks == 0


@pytest.mark.parametrize("name", ["autocast", "autocast inside"])
def test_differences_under_autocast_agree_with_a_backward_pass(name: str) -> None:
    around, active, _, _ = CASES[name]
    with frozen([net := Residual()]), context(active):
        exact = sample(seen(net), LABELS, rectify="vjp", **CALL).samples
        reached = sample(seen(around(net)), LABELS, rectify="jvp", **CALL).samples
        found = sample(seen(around(net)), LABELS, rectify="fd", **CALL).samples
    own = (reached - exact).norm()  # K and K^T differ: the network is no exact denoiser
    assert (found - reached).norm() < 0.02 * reached.norm() and own < 0.2 * exact.norm()


def test_an_engine_notices_that_autocast_has_changed() -> None:
    engine = Engine(seen(Residual()), rectify="fd", **CALL)
    for active in (False, True, False):
        with autocast(active):
            wanted = sample(seen(Residual()), LABELS, rectify="fd", **CALL).samples
            assert torch.equal(engine.sample(LABELS).samples, wanted)


@pytest.mark.parametrize("dtype", [F64, F32, BF16])
def test_rounding_is_measured_and_kinks_are_not_taken_for_it(dtype: torch.dtype) -> None:
    """Hidden behind a function that casts, so that nothing but the noise shows it."""
    for name, net in smooth():
        if name in ("dropout", "noise", "finely rounded", "zero", "identity", "clamped"):
            continue
        with frozen([net]), torch.no_grad():
            engine = Engine(seen(cast(dtype, True)(net), "edm", modules=()), dtype=F64, **CALL)
            point = engine._trial((torch.tensor(LABELS), None), 1)
            found = measured_precision(point)
            assert found == dtype, name
            assert point.counter.forward == (5 if found in (F32, F64) else 3)
            assert precision_of(point.denoiser, point.x) == F64


def test_what_autocast_computes_in() -> None:
    assert autocast_dtype(torch.device("cpu")) is None
    with autocast():
        assert autocast_dtype(torch.device("cpu")) == BF16


@pytest.mark.parametrize(
    ("noise", "found"),
    [
        (1.03 * 1.5e-4, BF16),
        (0.97 * 1.5e-4, F32),
        (1.03 * 5e-9, F32),
        (0.97 * 5e-9, F64),
        (0.0, F64),
    ],
)
def test_noise_is_measured_at_its_own_size(noise: float, found: torch.dtype) -> None:
    """Second differences of independent noise are sqrt(1 + 1 + 4) times it: the limit is one of
    noise, not of the difference. The signs of the three evaluations are orthogonal here."""
    signs = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]).double()
    asked: list[int] = []

    def net(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        asked.append(len(asked))
        column = signs[(1, 2, 3, 2, 3)[asked[-1]]]
        return (1 + noise * column).expand_as(x)

    row = table("euler", EDM(), 4).rows[2]
    denoiser = Denoiser(net, "sample", EDM(), (4,))
    x = torch.ones(1, 4, dtype=F64)
    assert measured_precision(Point(x, row, 2, denoiser, Unconditional(), None, {})) == found
    assert len(asked) == (3 if found == BF16 else 5)
