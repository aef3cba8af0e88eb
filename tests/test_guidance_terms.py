"""Several references at once: their sum against closed forms, one batch, one estimator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from nets import TinyNet, tiny
from rerun import Rerun
from torch import Tensor

import reg_engine
from reg_engine import (
    APG,
    BadModel,
    CFGZeroStar,
    Denoiser,
    Engine,
    Guidance,
    Guide,
    Interval,
    Plan,
    Rescale,
    Term,
    Unconditional,
    schedules,
)
from reg_engine.loop.capture import Capture
from reg_engine.loop.graphs import Graphs
from reg_engine.noise import SampleNoise
from reg_engine.oracles import GaussianMixture

LABELS = torch.tensor([0, 1, 0])
EXACT = {"dtype": torch.float64, "progress": False}
MEANS = torch.tensor([[1.0, 0.5], [-1.0, 0.2], [0.3, -1.2]], dtype=torch.float64)


def mixture_model() -> tuple[GaussianMixture, Denoiser]:
    """Three classes; label 3 is their union, 4 the union of the last two."""
    mixture = GaussianMixture(MEANS, 0.4, labels=torch.arange(3))
    pair = GaussianMixture(MEANS[1:], 0.4, labels=torch.zeros(2, dtype=torch.long))

    def net(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        sigma = float(t[0])
        rows = []
        for label in cond.tolist():
            source, y = (pair, 0) if label == 4 else (mixture, None if label == 3 else label)
            rows.append(source.denoised(x, 1.0, sigma, y))
        return torch.stack([row[i] for i, row in enumerate(rows)])

    denoiser = Denoiser(net, "sample", schedules.EDM(), (2,), 3, dtype=torch.float64)
    return mixture, denoiser


def estimates(denoiser: Denoiser, x: Tensor, t: float, *labels: int) -> list[Tensor]:
    return [denoiser(x, t, torch.full((len(x),), label)) for label in labels]


def test_two_references_summed_are_the_closed_form() -> None:
    """On a mixture whose denoisers are exact: cond + w_1 (cond - ref_1) + w_2 (cond - ref_2)."""
    _, denoiser = mixture_model()
    terms = (
        Term(3.0, Unconditional(), None),
        Term(1.5, Unconditional(4), None),
    )
    x = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    guide = Guide(denoiser, torch.zeros(3, dtype=torch.long), guidance=Guidance(terms=terms))
    for sigma in (0.3, 1.0, 5.0):
        cond, every, two = estimates(denoiser, sigma * x, sigma, 0, 3, 4)
        wanted = cond + 2.0 * (cond - every) + 0.5 * (cond - two)
        assert torch.allclose(guide(sigma * x, sigma), wanted, rtol=1e-10)
    assert guide.stats.nfe == 9  # three a call, in one batch


def test_a_rectified_sum_is_the_jacobian_of_the_sum() -> None:
    """K (w_1 delta_1 + w_2 delta_2), and a term without rectifier as it is."""
    _, denoiser = mixture_model()
    label = torch.zeros(3, dtype=torch.long)
    terms = (
        Term(3.0, Unconditional(), "vjp"),
        Term(1.5, Unconditional(4), "vjp"),
        Term(1.2, BadModel(denoiser, cond=2), None),
    )
    guide = Guide(denoiser, label, guidance=Guidance(terms=terms), check=False)
    x = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cond, every, two, other = estimates(denoiser, x, 1.0, 0, 3, 4, 2)
    delta = 2.0 * (cond - every) + 0.5 * (cond - two)
    one = torch.func.jacrev(lambda y: denoiser(y[None], 1.0, label[:1])[0])
    k_delta = torch.stack([one(x[i]).T @ delta[i] for i in range(3)])
    wanted = cond + k_delta + 0.2 * (cond - other)
    assert torch.allclose(guide(x, 1.0), wanted, rtol=1e-8)


@pytest.mark.parametrize("rectify", [None, "vjp", "jvp", "fd", "fd_batched", "paper"])
@pytest.mark.parametrize("adjust", [(), (Rescale(0.7),)], ids=["-", "rescale"])
def test_one_term_is_the_short_form(rectify: str | None, adjust: Any) -> None:
    model, common = tiny(net=TinyNet().double()), {"solver": "dpmpp_2m", "steps": 4, **EXACT}
    short = Guidance(3.0, rectify=rectify, adjust=adjust)
    long = Guidance(terms=(Term(3.0, rectify=rectify),), adjust=adjust)
    found, wanted = (reg_engine.sample(model, LABELS, guidance=g, **common) for g in (long, short))
    assert torch.allclose(found.samples, wanted.samples, rtol=1e-6, atol=1e-9)
    assert (found.stats.nfe, found.stats.backward) == (wanted.stats.nfe, wanted.stats.backward)


@pytest.mark.parametrize("rectify", [None, "vjp", "jvp", "fd_batched"])
def test_halves_of_a_term_are_the_whole(rectify: str | None) -> None:
    model, common = tiny(net=TinyNet().double()), {"solver": "euler", "steps": 4, **EXACT}
    half = Term(2.0, rectify=rectify)
    halves = reg_engine.sample(model, LABELS, guidance=Guidance(terms=(half, half)), **common)
    whole = reg_engine.sample(model, LABELS, scale=3.0, rectify=rectify, **common)
    assert torch.allclose(halves.samples, whole.samples, rtol=1e-6, atol=1e-9)


def test_a_term_without_weight_is_not_evaluated() -> None:
    other = tiny()
    terms = (Term(3.0, rectify=None), Term(Interval(2.0, 0.0, 1.0), BadModel(other), None))
    engine = Engine(tiny(), guidance=Guidance(terms=terms), solver="euler", steps=6, **EXACT)
    inside = sum(row.noise_level <= 1 for row in engine.table.rows)
    assert 0 < inside < 6
    assert engine.sample(LABELS).stats.nfe == 2 * 6 + inside


def test_an_estimator_runs_where_a_rectified_term_has_weight() -> None:
    terms = (Term(Interval(3.0, 0.0, 1.0), rectify="vjp"), Term(2.0, BadModel(tiny()), None))
    engine = Engine(tiny(), guidance=Guidance(terms=terms), solver="euler", steps=6)
    inside = [row.noise_level <= 1 for row in engine.table.rows]
    assert [mode == "reg" for mode in engine.modes] == inside and set(engine.modes) == {
        "reg",
        "cfg",
    }


def test_every_term_has_its_own_direction_and_memory() -> None:
    """Momentum of two terms apart: each alone gives the sum's part at the first two rows."""
    _, denoiser = mixture_model()
    terms = (
        Term(2.0, Unconditional(), None, APG(momentum=-0.5)),
        Term(3.0, Unconditional(4), None, APG(momentum=0.3)),
    )
    label = torch.zeros(3, dtype=torch.long)
    x = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    guides = [
        Guide(denoiser, label, guidance=Guidance(terms=given))
        for given in (terms, terms[:1], terms[1:])
    ]
    for sigma in (2.0, 1.0):
        cond = estimates(denoiser, sigma * x, sigma, 0)[0]
        both, *each = (guide(sigma * x, sigma) for guide in guides)
        assert torch.allclose(both - cond, sum(one - cond for one in each), rtol=1e-9, atol=1e-12)


def test_a_term_may_weigh_each_sample() -> None:
    class Each:
        def per_sample(self, point: Any, cond: Tensor, delta: Tensor) -> Tensor:
            assert point.reference == Unconditional()
            return torch.tensor([0.0, 1.0, 2.0])

    model, common = tiny(net=TinyNet().double()), {"solver": "euler", "steps": 4, **EXACT}
    terms = (Term(Each(), rectify=None), Term(1.5, direction=CFGZeroStar(), rectify=None))
    found = reg_engine.sample(model, LABELS, guidance=Guidance(terms=terms), **common).samples
    for i, w in enumerate((0.0, 1.0, 2.0)):
        given = (Term(1 + w, rectify=None), terms[1])
        wanted = reg_engine.sample(model, LABELS, guidance=Guidance(terms=given), **common).samples
        assert torch.allclose(found[i], wanted[i], rtol=1e-9)


def test_a_plan_and_captured_rows_know_every_term() -> None:
    terms = (
        Term(Interval(3.0, 0.0, 5.0), rectify="vjp"),
        Term(2.0, BadModel(tiny(net=TinyNet().double())), None, APG()),
    )
    plan = Plan.interval(0.5, 20.0)
    model, guidance = tiny(net=TinyNet().double()), Guidance(terms=terms)
    engine = Engine(model, guidance=guidance, plan=plan, steps=5, **EXACT)
    wanted = engine.sample(LABELS)
    conds = engine.conditions(LABELS, 3)

    def recorder(work: Any, restore: Any) -> Any:
        work()
        restore()
        return work

    with torch.no_grad():
        capture = Capture(engine, conds, 3, recorder)
        seeds = range(3)
        counter = capture.run(conds, SampleNoise(seeds), SampleNoise(seeds, "probes"), None)
    assert torch.allclose(capture.state.x, wanted.samples, rtol=1e-9)
    assert counter is not None and counter.forward == 3 * wanted.stats.nfe
    assert {key[2] for key in capture._graphs} >= {(True, True), (False, True)}


def samples(guidance: Guidance, **choices: Any) -> Tensor:
    model = tiny(net=TinyNet().double())
    common = {"solver": "euler", "steps": 4, **EXACT}
    return reg_engine.sample(model, LABELS, guidance=guidance, **common, **choices).samples


def test_one_term_of_scale_0_is_the_short_form() -> None:
    short, long = Guidance(0.0), Guidance(terms=(Term(0.0),))
    assert torch.equal(samples(short), samples(long))


def test_a_lagged_estimator_is_captured_where_its_term_begins_later() -> None:
    """The `cfg` rows before leave a delta of zeros, so the batch runs twice, every time."""
    terms = (Term(Interval(3.0, 0.1, 5.0), rectify="fd_batched"), Term(2.0, BadModel(tiny()), None))
    engine = Engine(tiny(), guidance=Guidance(terms=terms), steps=5, progress=False)
    engine._graphs = Graphs(Rerun(), always=True)
    assert engine.sample(LABELS).stats.capture == "captured"


@pytest.mark.parametrize("rectify", ["vjp", "fd_batched"])
def test_a_plan_without_rectifier_adds_up_all_terms(rectify: str) -> None:
    """And the lag that it leaves is of the rectified ones alone."""
    _, denoiser = mixture_model()
    terms = (Term(3.0, Unconditional(), rectify), Term(1.5, Unconditional(4), None))
    label = torch.zeros(3, dtype=torch.long)
    plan = Plan((1.5,), ("reg", "cfg"))
    guide = Guide(denoiser, label, guidance=Guidance(terms=terms), plan=plan, check=False)
    x = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cond, every, two = estimates(denoiser, 2 * x, 2.0, 0, 3, 4)
    wanted = cond + 2.0 * (cond - every) + 0.5 * (cond - two)
    assert torch.allclose(guide(2 * x, 2.0), wanted, rtol=1e-10)
    assert torch.allclose(guide._memory["delta"], 2.0 * (cond - every), rtol=1e-10)
    assert torch.allclose(guide._memory["term 1: delta"], cond - two, rtol=1e-10)


def test_a_direction_of_several_terms_is_their_weighted_sum() -> None:
    for rectify in (None, "vjp"):
        terms = (Term(3.0, rectify=rectify), Term(2.0, Unconditional(1), rectify))
        one = Guidance(terms=terms).as_one()
        seen = []

        def spy(point: Any, direction: Any) -> tuple[Tensor, Tensor, Tensor]:
            ref, cond = point.stack(point.x)
            total = one.direction(point, cond, ref)  # noqa: B023
            seen.append(torch.equal(total, 2.0 * (cond - ref[0]) + (cond - ref[1])))  # noqa: B023
            return cond, total, total

        spied = tuple(replace(term, rectify=spy) for term in terms)
        samples(Guidance(terms=spied))
        assert seen and all(seen)
