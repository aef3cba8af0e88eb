"""`blend` against dense Jacobians of the condition and the reference (float64)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from bound_cases import LEAST, MOST, holds
from rectifier_cases import Net, point
from torch import Tensor

from reg_engine import Denoiser, Guidance, InputError, Term
from reg_engine.guidance.directions import Delta
from reg_engine.guidance.references import BadModel, Classifier, Unconditional
from reg_engine.networks.point import Point
from reg_engine.ops.coefficients import COLUMNS
from reg_engine.rectifiers import Blend, Characteristic, follows_w, make


def weighed(w: float, **changes: Any) -> Point:
    """`rectifier_cases.point` at a row of weight w."""
    table = torch.zeros(1, len(COLUMNS), dtype=torch.float64)
    table[0, COLUMNS.index("w")] = w
    return replace(point(), table=table, step=torch.zeros((), dtype=torch.int64), **changes)


def worse(p: Point) -> Denoiser:
    net = Net().double().requires_grad_(False)
    for k, parameter in enumerate(net.parameters()):
        parameter.mul_(0.7 + 0.1 * (k % 5))
    return Denoiser(net, "epsilon", p.denoiser.schedule, (2, 3), null_cond=3, num_classes=3)


def steer(x: Tensor, t: Tensor) -> Tensor:
    """Logits of three classes."""
    return torch.stack([(k + 1) * x.flatten(1).sin().sum(1) for k in range(3)], 1)


def references(p: Point) -> dict[str, Any]:
    return {
        "unconditional": Unconditional(),
        "bad": BadModel(worse(p)),
        "classifier": Classifier(steer),
    }


def fields(p: Point) -> tuple[Any, Any]:
    """cond and ref as functions of the state, without the code under test."""

    def cond(x: Tensor) -> Tensor:
        return p.denoiser(x, p.row.t, p.cond)

    def ref(x: Tensor) -> Tensor:
        if isinstance(p.reference, BadModel):
            return p.reference.net(x, p.row.t, p.cond)
        if isinstance(p.reference, Classifier):
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                log = steer(leaf, p.row.t).log_softmax(1)[range(len(x)), p.cond].sum()
                (gradient,) = torch.autograd.grad(log, leaf)
            return cond(x) - p.sigma**2 / p.alpha * gradient
        return p.denoiser(x, p.row.t, torch.full_like(p.cond, 3))

    return cond, ref


def quotient(p: Point, field: Any, d: Tensor) -> Tensor:
    """<K d, d> / <d, d> of every sample, K d by a central difference."""
    step = 1e-5
    k_d = p.alpha * (field(p.x + step * d) - field(p.x - step * d)) / (2 * step)
    return (k_d * d).flatten(1).sum(1) / (d * d).flatten(1).sum(1)


def factor(p: Point, d: Tensor, w: float) -> Tensor:
    cond, ref = fields(p)
    r_c, r_u = quotient(p, cond, d), quotient(p, ref, d)
    return (r_c / (1 + max(w, 0) * (r_u - r_c).clamp_min(0)))[:, None, None]


@pytest.mark.parametrize("w", [3.0, -0.5])
@pytest.mark.parametrize("name", ["unconditional", "bad", "classifier"])
def test_it_is_its_formula_along_delta_and_along_the_lag(name: str, w: float) -> None:
    p = weighed(w)
    p = replace(p, reference=references(p)[name])
    cond, ref = (field(p.x) for field in fields(p))
    delta = cond - ref
    found = Blend()(p, Delta())
    torch.testing.assert_close(found[0], cond)
    torch.testing.assert_close(found[2], delta)
    torch.testing.assert_close(found[1], factor(p, delta, w) * delta, rtol=1e-5, atol=1e-7)
    lag = torch.randn(p.x.shape, generator=torch.Generator().manual_seed(1)).double()
    p.memory["delta"] = lag
    again = Blend()(p, Delta())
    torch.testing.assert_close(again[0], cond)
    torch.testing.assert_close(again[2], delta)
    torch.testing.assert_close(again[1], factor(p, lag, w) * delta, rtol=1e-5, atol=1e-7)
    assert (again[1] - found[1]).norm() > 1e-2 * found[1].norm()


def test_the_reference_counts_only_where_it_is_wider() -> None:
    """Both signs of r_u - r_c occur among the samples, so that both branches are seen."""
    p = weighed(3.0)
    cond, ref = fields(p)
    gaps = torch.cat([quotient(p, ref, d) - quotient(p, cond, d) for d in torch.randn(
        8, *p.x.shape, generator=torch.Generator().manual_seed(3)).double()])  # fmt: skip
    assert bool((gaps > 1e-3).any()) and bool((gaps < -1e-3).any())
    for seed in range(4):
        lag = torch.randn(p.x.shape, generator=torch.Generator().manual_seed(seed)).double()
        p.memory["delta"] = lag
        delta = cond(p.x) - ref(p.x)
        wanted = factor(p, lag, 3.0) * delta
        torch.testing.assert_close(Blend()(p, Delta())[1], wanted, rtol=1e-5, atol=1e-7)


def test_four_rows_are_one_batch() -> None:
    p = weighed(3.0)
    net = p.denoiser.net
    Blend()(p, Delta())
    assert net.calls == [6, 6] and p.counter.forward == 12
    p.memory["delta"] = torch.ones_like(p.x)
    Blend()(p, Delta())
    assert net.calls[2:] == [12] and p.counter.forward == 24


def test_a_vanished_lag_takes_delta_for_that_sample_alone() -> None:
    p = weighed(3.0)
    cond, ref = (field(p.x) for field in fields(p))
    delta, lag = cond - ref, torch.randn_like(cond)
    lag[1] = 0
    p.memory["delta"] = lag
    got, wanted = Blend()(p, Delta())[1], torch.where(
        torch.tensor([False, True, False])[:, None, None],
        factor(p, delta, 3.0),
        factor(p, lag, 3.0),
    )  # fmt: skip
    torch.testing.assert_close(got, wanted * delta, rtol=1e-5, atol=1e-7)
    p.missed = torch.zeros((), dtype=torch.bool)  # a host that must not look
    blind = Blend()(p, Delta())[1]
    assert bool(p.missed) and torch.equal(blind[[0, 2]], got[[0, 2]])
    assert bool(blind.isfinite().all())


def test_what_follows_w_serves_one_term_and_one_weight() -> None:
    class Each:
        def per_sample(self, point: object, cond: Tensor, delta: Tensor) -> Tensor:
            return torch.ones(len(cond))

    for rectify in ("blend", "characteristic", Blend(1e-3), Characteristic(3)):
        assert follows_w(rectify)
        with pytest.raises(InputError, match="^rectify: .* before a weight of each sample"):
            Guidance(Each(), rectify=rectify)
        with pytest.raises(InputError, match="^terms: are 2, and .* serves one"):
            Guidance(terms=(Term(2.0, rectify=rectify), Term(1.5, rectify=None)))
        assert Guidance(terms=(Term(2.0, rectify=rectify),)).as_one().rectify == rectify
    assert not any(map(follows_w, ("fd", "auto", None, make("vjp"))))


def test_the_step_is_any_positive_number() -> None:
    holds(Blend, "rho", (LEAST, MOST), (0.0,))
