"""The running steps against the formulas written out, with no engine in between."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from derivative_cases import Residual, seen
from nets import CLASSES, SHAPE, flow_point, tiny
from torch import Tensor

from reg_engine import BadModel, Classifier, Constant, Engine, Guidance, Plan
from reg_engine.guidance.directions import CFGZeroStar, Delta
from reg_engine.loop.progress import Progress
from reg_engine.loop.run import Batch
from reg_engine.loop.stats import Stats
from reg_engine.networks.point import Point
from reg_engine.noise import SampleNoise
from reg_engine.rectifiers.reverse import saved_bytes_per_sample
from reg_engine.solvers import Table

LABELS = torch.tensor([0, 1, 2])
SEEDS = [4, 5, 6]


@dataclass(frozen=True)
class Tripled:
    """A rectifier whose K is known: 3."""

    name = "tripled"

    def __call__(self, point: Point, direction: Delta) -> tuple[Tensor, Tensor, Tensor]:
        ref, cond = point.stack(point.x)
        delta = direction(point, cond, ref)
        return cond, 3 * delta, delta


@dataclass(frozen=True)
class Halved:
    """An adjustment that depends on both of its arguments."""

    def __call__(self, point: Point, guided: Tensor, cond: Tensor) -> Tensor:
        return 0.5 * guided + 0.25 * cond


def by_hand(k: float, adjusted: bool, scale: float = 2.5, steps: int = 4) -> Tensor:
    """Euler on EDM: dx/d sigma = (x - guided)/sigma, guided = cond + (scale - 1) k (cond - ref)."""
    model = tiny()
    sigmas = [*Engine(model, solver="euler", steps=steps, progress=False).table.rows]
    levels = [row.sigma for row in sigmas] + [0.0]
    x = levels[0] * SampleNoise(SEEDS).normal(torch.empty(3, *SHAPE, dtype=torch.float64))
    with torch.no_grad():
        for now, then in zip(levels, levels[1:], strict=False):
            cond = model(x, now, LABELS)
            ref = model(x, now, torch.full_like(LABELS, CLASSES))
            guided = cond + (scale - 1) * k * (cond - ref)
            if adjusted:
                guided = 0.5 * guided + 0.25 * cond
            x = x + (then - now) * (x - guided) / now
    return x


@pytest.mark.parametrize("adjusted", [False, True])
@pytest.mark.parametrize(("k", "plan"), [(0.0, "cond"), (1.0, "cfg"), (3.0, "reg")])
def test_every_mode_is_its_formula(k: float, plan: str, adjusted: bool) -> None:
    above, below = Plan.interval(0.0, 1e-9), Plan.interval(1e6, 2e6)  # no row is rectified
    plans = {"cond": above, "cfg": below, "reg": Plan.full()}
    adjust = (Halved(),) if adjusted else ()
    guidance = Guidance(weight=2.5, rectify=Tripled(), adjust=adjust)
    engine = Engine(
        tiny(), guidance=guidance, plan=plans[plan], solver="euler", steps=4,
        dtype=torch.float64, progress=False,
    )  # fmt: skip
    out = engine.sample(LABELS, SEEDS)
    assert out.stats.modes == {plan: 4}
    torch.testing.assert_close(out.samples, by_hand(k, adjusted), rtol=1e-5, atol=1e-5)


def test_modes_need_a_weight_and_a_rectifier() -> None:
    assert Engine(tiny(), scale=1.0, solver="euler", steps=2).modes == ("cond", "cond")
    assert Engine(tiny(), scale=2.0, rectify=None, solver="euler", steps=2).modes == ("cfg", "cfg")
    assert Engine(tiny(), scale=2.0, rectify="vjp", solver="euler", steps=2).modes == ("reg", "reg")


@pytest.mark.usefixtures("alike")
def test_auto_sizes_the_memory_of_a_whole_batch() -> None:
    """Recorded activations of one sample fit the budget, those of the batch do not."""
    one = saved_bytes_per_sample(flow_point(batch=1))
    for batch, rows, takes in ((None, 1, "vjp"), (None, 3, "jvp"), (1, 3, "vjp"), (3, 3, "jvp")):
        engine = Engine(
            tiny(), scale=2.0, rectify="auto", solver="euler", steps=2, batch_size=batch,
            memory_budget=int(1.5 * one), dtype=torch.float64, progress=False,
        )  # fmt: skip
        assert engine.sample(LABELS[:rows]).stats.estimator == takes, (batch, rows)


@pytest.mark.parametrize(("rectify", "checks"), [("vjp", 9), ("jvp", 7), ("fd", 3)])
def test_an_estimator_is_tried_on_one_sample_of_a_batch(rectify: str, checks: int) -> None:
    """vjp: 1 + 4 differences, 2 of each way; jvp: the differences and a tangent; fd: 3 for the
    rounding. None is taken once a sample of the batch."""
    for rows in (1, 3):
        choices = {"scale": 2.0, "rectify": rectify, "solver": "euler", "steps": 2}
        out = Engine(tiny(), progress=False, **choices).sample(LABELS[:rows])
        assert out.stats.checks == checks, rows
    engine = Engine(seen(Residual()), progress=False, compile=True, **choices)
    stats = Stats()
    engine.prepare(engine.conditions(LABELS, 3), 3, stats)
    assert stats.checks == 3 * checks, "what is compiled sees one shape, that of a batch"


def test_the_bar_counts_every_row_of_every_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    class Bar(Progress):
        def advance(self, amount: int) -> None:
            counted.append(amount)

    monkeypatch.setattr("reg_engine.loop.batches.Progress", Bar)
    engine = Engine(tiny(), scale=2.0, steps=3, batch_size=2, progress=False)  # heun: 5 rows
    engine.sample(LABELS)
    assert counted == [2] * 5 + [1] * 5
    counted.clear()

    def replay(run: Engine, batch: Batch, stats: Stats) -> Tensor:
        return torch.zeros(len(batch.seeds), *SHAPE)

    engine._graphs = SimpleNamespace(run=replay)  # type: ignore[assignment]
    engine.sample(LABELS)
    assert counted == [10, 5], "a graph replays all rows at once"


def unconditional(solver: str, **choices: object) -> Tensor:
    """What the network gives with the null label, as a conditional model of its own."""
    alone = tiny()
    alone.num_classes = None
    nulls = torch.full((3,), CLASSES)
    return Engine(alone, scale=1.0, solver=solver, **choices).sample(nulls, SEEDS).samples


@pytest.mark.parametrize("rectify", ["auto", "vjp", "fd_batched", None])
@pytest.mark.parametrize("solver", ["heun", "euler_ancestral"])
def test_scale_zero_is_the_reference_alone_bit_for_bit(solver: str, rectify: str | None) -> None:
    choices = {"steps": 4, "progress": False}
    out = Engine(tiny(), scale=0.0, rectify=rectify, solver=solver, **choices).sample(LABELS, SEEDS)
    assert torch.equal(out.samples, unconditional(solver, **choices))
    rows = sum(out.stats.modes.values())
    assert out.stats.modes == {"ref": rows} and out.stats.nfe == rows
    assert out.stats.estimator == "none" and out.stats.backward == 0


@dataclass(frozen=True)
class Switched:
    """Scale 0 at the odd rows, 3 at the even ones."""

    def __call__(self, row: object, table: Table) -> float:
        return -1.0 if table.rows.index(row) % 2 else 2.0


def test_rows_of_scale_zero_take_the_reference_whatever_the_plan_rectifies() -> None:
    engine = Engine(
        tiny(), guidance=Guidance(Switched(), rectify=Tripled()), solver="euler", steps=4,
        dtype=torch.float64, progress=False,
    )  # fmt: skip
    assert engine.modes == ("reg", "ref", "reg", "ref")
    x = engine.start(SampleNoise(SEEDS).normal(torch.empty(3, *SHAPE, dtype=torch.float64)), None)
    with torch.no_grad():
        for index, row in enumerate(engine.table.rows):
            ref = engine.denoiser(x, row.t, torch.full_like(LABELS, CLASSES))
            cond = engine.denoiser(x, row.t, LABELS)
            guided = ref if index % 2 else cond + 2 * 3 * (cond - ref)
            x = row.a * x + row.b[0] * (row.p * x + row.q * guided)
    torch.testing.assert_close(engine.sample(LABELS, SEEDS).samples, x, rtol=1e-5, atol=1e-5)


def test_scale_zero_needs_cond_where_somebody_looks_at_it() -> None:
    """An adjustment, another direction and a classifier see cond; nothing is rectified."""
    quiet = {"solver": "euler", "steps": 2, "progress": False}
    adjusted = Engine(tiny(), guidance=Guidance(Constant(0.0), adjust=(Halved(),)), **quiet)
    assert adjusted.modes == ("cfg", "cfg")
    star = Engine(tiny(), guidance=Guidance(Constant(0.0), direction=CFGZeroStar()), **quiet)
    assert star.modes == ("cfg", "cfg")
    worse = Guidance(Constant(0.0), BadModel(tiny(), cond=CLASSES))
    alone = Engine(tiny(), guidance=worse, **quiet).sample(LABELS, SEEDS)
    assert torch.equal(alone.samples, unconditional(**quiet)) and alone.stats.nfe == 2
    classifier = Guidance(Constant(0.0), Classifier(lambda x, t: x.flatten(1)[:, :3]))
    steered = Engine(tiny(), guidance=classifier, **quiet).sample(LABELS, SEEDS)
    plain = Engine(tiny(), guidance=replace(classifier, rectify=None), **quiet)
    plain.modes = ("cfg", "cfg")
    torch.testing.assert_close(steered.samples, plain.sample(LABELS, SEEDS).samples)
    assert steered.stats.modes == {"ref": 2} and steered.stats.nfe == 4
    planned = Engine(tiny(), scale=0.0, plan=Plan.interval(0.0, 1e-9), **quiet)
    assert planned.modes == ("cond", "cond"), "the plan says that guidance is off there"
