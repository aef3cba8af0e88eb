"""Evaluations where they are due: against the estimators that evaluate every time (float64)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from nets import flow_point, tiny
from rectifier_cases import Net
from torch import Tensor

from reg_engine import (
    APG,
    Delta,
    Denoiser,
    Engine,
    Guidance,
    Guide,
    InputError,
    Term,
    sample,
    schedules,
)
from reg_engine.errors import CaptureError
from reg_engine.guidance.references import BadModel, Classifier, Unconditional
from reg_engine.ops.coefficients import COLUMNS
from reg_engine.oracles import GaussianMixture, energy_distance, two_class_2d
from reg_engine.rectifiers import Alternate, Blend, FDBatched, Lazy, LazyBlend, Rectifier
from reg_engine.rectifiers.law import Known, carried, quotient_of

EDM = schedules.EDM(sigma_min=0.01, sigma_max=20.0)
ALWAYS = Lazy(tolerance=0.0, reference=0.0)


def gaussians(spread: float = 0.6) -> Denoiser:
    """A class and a reference of one Gaussian each, of one deviation: the law is exact."""
    means = torch.tensor([[1.0, 0.5], [-0.5, -1.0]], dtype=torch.float64)
    reference = GaussianMixture(means[1:], spread)
    return GaussianMixture(means[:1], spread, reference=reference).denoiser(schedule=EDM)


def drawn(denoiser: Denoiser, rectify: Any, count: int = 6, **choices: Any) -> Any:
    options = {"solver": "dpmpp_2m", "steps": 12, "dtype": torch.float64, **choices}
    if "guidance" not in options:
        options |= {"scale": 3.0, "rectify": rectify}
    cond = torch.arange(count) % (denoiser.num_classes or 1)
    return sample(denoiser, cond, progress=False, check=False, **options)


def dense(prediction: str = "edm") -> Denoiser:
    net = Net().double().requires_grad_(False)
    return Denoiser(net, prediction, EDM, (2, 3), null_cond=3, num_classes=3)


def worse() -> Denoiser:
    net = Net().double().requires_grad_(False)
    for parameter in net.parameters():
        parameter.mul_(0.8)
    return Denoiser(net, "edm", EDM, (2, 3), null_cond=3, num_classes=3)


def steer(x: Tensor, t: Tensor) -> Tensor:
    """Logits of three classes."""
    return torch.stack([(k + 1) * x.flatten(1).sin().sum(1) for k in range(3)], 1)


REFERENCES: dict[str, Callable[[], Any]] = {
    "unconditional": Unconditional,
    "bad": lambda: BadModel(worse()),
    "classifier": lambda: Classifier(steer),
}


@pytest.mark.parametrize("solver", ["dpmpp_2m", "heun", "euler"])
@pytest.mark.parametrize("kind", [Lazy, Alternate])
def test_where_the_law_is_exact_one_look_is_enough(kind: type, solver: str) -> None:
    """What is measured at the first row is carried nearly to the last: the samples are those of an
    estimator that measures at every row."""
    net = gaussians()
    exact = drawn(net, FDBatched(), solver=solver)
    once = drawn(net, kind(tolerance=0.99, reference=0.99), solver=solver)
    torch.testing.assert_close(once.samples, exact.samples, rtol=0, atol=2e-3)
    rows = 23 if solver == "heun" else 12
    assert exact.stats.nfe == 3 * rows and rows + 2 <= once.stats.nfe <= rows + 4
    cfg = drawn(net, None, solver=solver)
    assert float((cfg.samples - exact.samples).abs().min()) > 0.1


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("direction", [Delta(), APG()])
def test_without_tolerance_it_is_fd_batched(name: str, direction: Any) -> None:
    both = [
        drawn(
            dense(),
            None,
            guidance=Guidance(3.0, REFERENCES[name](), rectify, direction=direction),
        )
        for rectify in (ALWAYS, FDBatched())
    ]
    torch.testing.assert_close(both[0].samples, both[1].samples, rtol=1e-9, atol=1e-9)
    assert both[0].stats.nfe == both[1].stats.nfe == 36


@pytest.mark.parametrize("reference", [Unconditional(), BadModel(gaussians(0.9))])
def test_without_tolerance_lazy_blend_is_blend(reference: Any) -> None:
    """At levels where no quotient is lost in rounding."""
    net = two_class_2d().denoiser(schedule=schedules.EDM(sigma_min=0.01, sigma_max=5.0))
    both = [
        drawn(net, None, count=64, guidance=Guidance(3.0, reference, rectify))
        for rectify in (LazyBlend(tolerance=0.0, reference=0.0), Blend())
    ]
    torch.testing.assert_close(both[0].samples, both[1].samples, rtol=0, atol=1e-4)
    assert both[0].stats.nfe == 4 * 12 <= both[1].stats.nfe  # Blend asks again where p vanished
    full = drawn(net, None, count=64, guidance=Guidance(3.0, reference, FDBatched()))
    assert float((full.samples - both[0].samples).norm()) > 0.1


def test_several_terms_ask_every_reference_every_time() -> None:
    terms = lambda rectify: (Term(3.0, rectify=rectify), Term(1.5, BadModel(worse()), None))  # noqa: E731
    both = [drawn(dense(), None, guidance=Guidance(terms=terms(r))) for r in (ALWAYS, FDBatched())]
    torch.testing.assert_close(both[0].samples, both[1].samples, rtol=1e-9, atol=1e-9)
    lazy = drawn(
        dense(), None, guidance=Guidance(terms=terms(Lazy(tolerance=0.99, reference=0.99)))
    )
    assert lazy.stats.nfe == 12 * 3 + 1  # cond and two references; one probe, at the first row


@pytest.mark.parametrize("kind", [Lazy, Alternate, LazyBlend])
@pytest.mark.parametrize("name", REFERENCES)
def test_every_sample_decides_for_itself(kind: type, name: str) -> None:
    """A batch gives what its samples give alone, with as many evaluations in all."""
    guidance = Guidance(3.0, REFERENCES[name](), kind(1e-3))
    whole = drawn(dense(), None, guidance=guidance, seeds=range(6))
    alone = drawn(dense(), None, guidance=guidance, seeds=range(6), batch_size=1)
    torch.testing.assert_close(whole.samples, alone.samples, rtol=1e-7, atol=1e-7)
    assert whole.stats.nfe == pytest.approx(alone.stats.nfe)
    assert 12 < whole.stats.nfe < 36


def test_what_is_due_goes_through_the_network_with_cond() -> None:
    net = dense()
    out = drawn(net, Alternate())
    calls = net.net.calls
    assert len(calls) == 13 and calls[:2] == [12, 6]  # [ref, cond], then cond moved along delta
    assert sum(calls) == 6 * out.stats.nfe and min(calls) == 6


def due(rectifier: Lazy, w: float, **values: Any) -> tuple[list[int], list[int]]:
    """What is probed and asked at noise level 1, of four samples."""
    p, ones = flow_point(), torch.ones(4)
    p = replace(p, row=replace(p.row, alpha=1.0, sigma=1.0))
    table = torch.zeros(1, len(COLUMNS))
    table[0, COLUMNS.index("w")] = w
    p = replace(p, table=table, step=torch.zeros((), dtype=torch.int64))
    plain = {field.name: ones for field in fields(Known)} | {"rate": 0 * ones}
    size, age = values.pop("size", ones), values.pop("age", 0 * ones)
    found = rectifier._due(p, Known(**{**plain, **values}), size, age)
    return found[0].tolist(), found[1].tolist()


def test_who_is_probed() -> None:
    """r = .5 measured at level 1 / 3 / 4 is .5 / .9 / .941 at level 1."""
    half = torch.full((4,), 0.5)
    levels = {"probed": torch.tensor([1.0, 3.0, 4.0, 3.0]), "asked": torch.ones(4)}
    lazy = Lazy(tolerance=0.42, reference=0.5)
    assert due(lazy, 1.0, quotient=half, other=half, **levels)[0] == [2]
    size = torch.tensor([1.0, 1.0, 0.9, 1.1])  # of a largest delta of 1: .44 * size against .42
    assert due(lazy, 1.0, quotient=half, other=half, size=size, **levels)[0] == [3]
    other = torch.tensor([0.5, 0.5, 0.5, 0.2])  # .2 at level 3 is .692 at level 1
    moved = {"quotient": half * 0 + 0.5, "other": other, "asked": torch.ones(4)}
    assert due(replace(lazy, tolerance=0.45), 1.0, probed=torch.full((4,), 3.0), **moved)[0] == [3]
    above = torch.tensor([0.5, 1.0, 1.4, 0.5])  # K > 1 is no Gaussian's: the law says nothing
    assert due(lazy, 1.0, quotient=above, other=above, probed=torch.ones(4))[0] == [1, 2]


def test_who_asks_the_reference() -> None:
    """w r max(rate, 5 r) age |delta| against reference * |largest|."""
    r = torch.tensor([0.1, 0.2, 0.2, 0.2])
    rate, age = torch.tensor([0.0, 0.0, 3.0, 0.0]), torch.tensor([0.5, 0.5, 0.5, 0.4])
    values = {"quotient": r, "other": r, "rate": rate, "age": age}
    # w r rate age: .05, .2, .6, .16
    assert due(Lazy(reference=0.19), 2.0, **values)[1] == [1, 2]
    assert due(Lazy(reference=0.09), 1.0, **values)[1] == [1, 2]
    assert due(Lazy(reference=0.21), -2.0, **values)[1] == [2]
    assert due(Lazy(reference=0.19), 2.0, largest=torch.full((4,), 2.0), **values)[1] == [2]
    assert due(Lazy(reference=0.0), 2.0, **values)[1] == [0, 1, 2, 3]


def test_the_rate_is_what_a_carried_delta_was_seen_to_lose() -> None:
    """ref is asked at two levels, and the second difference is compared with the first's."""
    net = dense()
    engine = Engine(
        net, scale=3.0, rectify=Alternate(reference=1e-9), solver="euler", steps=3,
        dtype=torch.float64, progress=False, check=False,
    )  # fmt: skip
    guide = Guide(
        net, torch.tensor([0, 1]), scale=3.0, rectify=Alternate(reference=1e-9), check=False
    )
    x = torch.randn(2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    raws = []
    for level in (2.0, 1.0):
        guide(x, level)
        raws.append(net(x, level, torch.tensor([0, 1])) - net(x, level, torch.tensor([3, 3])))
    known = Known.recall(guide._memory)
    assert known is not None and engine.table.rows
    torch.testing.assert_close(known.raw, raws[1])
    first = quotient_of(raws[0], exact_product(net, x, 2.0, raws[0]), None)
    now, then = (carried(first, 2 * torch.ones(2).double(), level) for level in (1.0, 2.0))
    stand_in = ((1 - now) / (1 - then))[:, None, None] * raws[0]
    lost = (raws[1] - stand_in).flatten(1).norm(dim=1) / stand_in.flatten(1).norm(dim=1)
    torch.testing.assert_close(known.rate, lost / math.log(2), rtol=1e-4, atol=1e-6)


def exact_product(net: Denoiser, x: Tensor, level: float, p: Tensor) -> Tensor:
    """K p by central differences."""
    sides = [net(x + h * p, level, torch.tensor([0, 1])) for h in (1e-5, -1e-5)]
    return (sides[0] - sides[1]) / 2e-5


def test_a_flow_begins_at_an_infinite_level() -> None:
    """Nothing is known there, and the next row measures everything."""
    net = two_class_2d().denoiser(schedule=schedules.Flow())
    both = [drawn(net, rectify, solver="flow_heun") for rectify in (ALWAYS, FDBatched())]
    torch.testing.assert_close(both[0].samples, both[1].samples, rtol=1e-5, atol=1e-5)
    out = drawn(net, Alternate(), solver="flow_heun", count=64)
    assert bool(out.samples.isfinite().all()) and out.stats.nfe < 0.8 * 2 * 23


def test_a_device_that_nobody_looks_at_is_looked_at_all_the_same() -> None:
    """As on a GPU; and a graph, where the host cannot look, is refused by name."""
    engines = [
        Engine(tiny(), scale=2.0, rectify="alternate", steps=5, progress=False) for _ in range(2)
    ]
    engines[1].looks = False
    first, second = (engine.sample([0, 1]) for engine in engines)
    assert torch.equal(first.samples, second.samples) and first.stats.nfe == second.stats.nfe
    p = replace(flow_point(), missed=torch.zeros((), dtype=torch.bool))
    with pytest.raises(CaptureError, match="'lazy_blend' lets the host look"):
        LazyBlend()(p, Delta())


CASES = [("dpmpp_2m", 20), ("heun", 18), ("euler", 32)]


@pytest.mark.parametrize(("solver", "steps"), CASES)
def test_the_samples_of_fd_batched_for_less_than_cfg(solver: str, steps: int) -> None:
    """Energy distance to the tilted target on the exact mixture: 0.7 to 0.85 of CFG's evaluations,
    no further than 1.2 x a sample of fd_batched's own (bars over 5 seeds: the slow test)."""
    mixture, count = two_class_2d(), 1024
    net, cond = mixture.denoiser(schedule=EDM), torch.zeros(count, dtype=torch.long)
    target = mixture.target_sampler(2.0)(4 * count, torch.Generator().manual_seed(7))
    out = {
        rectify: sample(
            net, cond, scale=3.0, rectify=rectify, solver=solver, steps=steps,
            dtype=torch.float64, progress=False, check=False,
        )
        for rectify in (None, "fd_batched", "alternate", "lazy")
    }  # fmt: skip
    distance = {name: energy_distance(each.samples, target) for name, each in out.items()}
    nfe = {name: each.stats.nfe for name, each in out.items()}
    assert nfe["alternate"] < 0.85 * nfe[None] and nfe["lazy"] < nfe[None] < nfe["fd_batched"]
    assert distance["lazy"] < 1.1 * distance["fd_batched"]
    assert distance["alternate"] < 1.2 * distance["fd_batched"] < 0.1 * distance[None]


@pytest.mark.parametrize("argument", ["tolerance", "reference"])
@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan"), "0.1", True])
def test_a_tolerance_is_a_share(argument: str, value: object) -> None:
    with pytest.raises(InputError, match=f"^{argument}: "):
        Lazy(**{argument: value})
    assert getattr(Lazy(**{argument: 0.5}), argument) == 0.5


def test_what_the_names_stand_for() -> None:
    assert (Lazy().tolerance, Lazy().reference) == (0.01, 0.02)
    for kind in (Alternate, LazyBlend):
        assert (kind().tolerance, kind().reference) == (0.05, 0.1)
    kinds: list[Rectifier] = [Lazy(), Alternate(), LazyBlend()]
    assert [kind.name for kind in kinds] == ["lazy", "alternate", "lazy_blend"]
