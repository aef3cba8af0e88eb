"""The parts of a distillation: settings, teachers, pairs, the loss, the comparison."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from adapter_cases import SHORT, TINY, adapter, labels, model

from reg_engine import Denoiser, Engine, Guidance, Guide, InputError, schedules
from reg_engine.distillation import Distillation, Teacher, differences
from reg_engine.distillation.pairs import SEEDS, Round, made
from reg_engine.distillation.task import DistillationTask, loss_of
from reg_engine.networks.adapter import Adapter, belonging, worn
from reg_engine.networks.lowrank import LowRank
from reg_engine.solvers import SOLVERS


@pytest.fixture(scope="module")
def base() -> Denoiser:
    return model()


def test_pairs_along_the_teachers_paths_are_its_own_estimates(base: Denoiser) -> None:
    teacher = Teacher(base, "vjp")
    one = Distillation(scales=(1.5, 4.0), student_from=1.0, **{**TINY, "paths": 1})
    found = made(3, teacher, labels, one, student=lambda scale: base)
    scale, cond = found.parts[0].scale, []
    assert 1.5 <= scale <= 4 and {part.scale for part in found.parts} == {scale}
    for part in found.parts:
        assert len(part) == 8
        cond.append(part.cond)
        for t in part.t.unique().tolist():
            at = part.t == t
            guide = Guide(base, part.cond[at], scale=scale, rectify="vjp")
            torch.testing.assert_close(guide(part.x[at], t), part.guided[at], atol=1e-5, rtol=1e-5)
    assert len(torch.cat(cond).unique()) == 2
    # All states of one seed's trajectory are there: as the engine makes them.
    steps = len(torch.cat([part.t for part in found.parts]).unique())
    engine = teacher.engine(scale, "dpmpp_2m", steps)
    first = engine.table.rows[0]
    starts = torch.cat([part.x[part.t == first.t] for part in found.parts])
    seeds = range(SEEDS + 24, SEEDS + 32)
    noise = next(iter(engine.steps(torch.zeros(8, dtype=torch.long), seeds))).x
    rows = {tuple(row) for row in noise.tolist()}
    assert rows >= {tuple(row) for row in starts.tolist()}, "seeds of round 3, path 0 of 8 samples"


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_student_leads_under_every_solver(solver: str) -> None:
    """Some ask twice at one time, or between two times."""
    flow = schedules.Flow() if SOLVERS[solver].flow_only else schedules.ScaledLinear()
    base = Denoiser(model().net, "sample", flow, (2,), 2, num_classes=2)
    one = {**TINY, "paths": 2, "solvers": (solver,), "solver_steps": (4, 4)}
    late = Distillation(scales=(1.5, 4.0), student_from=0.0, **one)
    found = made(0, Teacher(base, "vjp"), labels, late, student=lambda scale: base)
    led = list(dict.fromkeys(part.scale for part in found.parts))[1]
    engine = Engine(base, scale=1.0, solver=solver, steps=4)
    parts = [part for part in found.parts if part.scale == led]
    assert {t for part in parts for t in part.t.tolist()} == {row.t for row in engine.table.rows}
    for part in parts:
        for t in part.t.unique().tolist():
            at = part.t == t
            guide = Guide(base, part.cond[at], scale=led, rectify="vjp")
            torch.testing.assert_close(guide(part.x[at], t), part.guided[at], atol=1e-5, rtol=1e-5)


def test_the_students_own_paths_are_asked_of_the_teacher(base: Denoiser) -> None:
    teacher, own = Teacher(base, "vjp"), adapter(base)
    late = Distillation(scales=(1.5, 4.0), student_from=0.0, **TINY)
    asked: list[float] = []

    def student(scale: float) -> Denoiser:
        asked.append(scale)
        return worn(base, own, scale)

    found = made(0, teacher, labels, late, student)
    scales = list(dict.fromkeys(part.scale for part in found.parts))
    assert asked == [scales[1]], "every second path"
    parts = [part for part in found.parts if part.scale == scales[1]]
    times = torch.cat([part.t for part in parts]).unique()
    engine = Engine(worn(base, own, scales[1]), scale=1.0, solver="dpmpp_2m", steps=len(times))
    engine.progress = False
    x, t, cond, guided = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("x", "t", "cond", "guided")
    )
    second = engine.table.rows[1].t
    states = {}
    for label in (0, 1):
        steps = list(engine.steps(torch.full((8,), label), range(SEEDS + 8, SEEDS + 16)))
        states[label] = {tuple(row) for row in steps[1].x.tolist()}
    at = t == second
    assert int(at.sum()) > 2
    for row, label in zip(x[at].tolist(), cond[at].tolist(), strict=True):
        assert tuple(row) in states[label]
    guide = Guide(base, cond[at], scale=scales[1], rectify="vjp")
    torch.testing.assert_close(guide(x[at], second), guided[at], atol=1e-5, rtol=1e-5)


def test_a_round_is_a_function_of_its_number_and_is_kept(base: Denoiser, tmp_path: Path) -> None:
    teacher = Teacher(base, "none")
    first, again, next_ = (made(n, teacher, labels, SHORT, lambda s: base) for n in (0, 0, 1))
    assert torch.equal(first.parts[0].x, again.parts[0].x)
    assert first.parts[0].scale != next_.parts[0].scale
    assert Round.load(tmp_path / "none.pt") is None
    first.save(tmp_path / "round.pt")
    found = Round.load(tmp_path / "round.pt")
    assert found is not None and found.number == 0 and len(found.parts) == len(first.parts)
    for ours, theirs in zip(first.parts, found.parts, strict=True):
        assert ours.scale == theirs.scale
        for name in ("cond", "x", "t", "guided"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name))


def test_every_solver_and_scale_is_drawn(base: Denoiser) -> None:
    several = Distillation(scales=(1.0, 4.0), solvers=("euler", "heun"), **{**TINY, "paths": 40})
    found = made(0, Teacher(base, "none"), labels, several, lambda s: base)
    scales = torch.tensor(list(dict.fromkeys(part.scale for part in found.parts))).log()
    assert len(scales) == 40
    middle = scales.mean() / torch.tensor(4.0).log()
    assert 0.35 < middle < 0.65, "even in ln s"
    rows = Counter(part.scale for part in found.parts)  # of 8 pairs each, as many as samples
    assert set(list(rows.values())[0::2]) == {3, 4, 5}, "Euler's"
    assert set(list(rows.values())[1::2]) == {5, 7, 9}, "Heun's, with its corrections"


def test_the_loss_is_the_formula(base: Denoiser) -> None:
    torch.manual_seed(0)
    found = made(0, Teacher(base, "vjp"), labels, SHORT, lambda s: base).parts[0]
    values = []
    for x, t, label, guided in zip(found.x, found.t, found.cond, found.guided, strict=True):
        level, data = base.schedule.noise_level(float(t)), base.sigma_data
        weight = (level**2 + data**2) / (level * data) ** 2
        answer = base(x[None], float(t), label[None])[0]
        values.append(weight * (answer - guided).double().square().mean())
    torch.testing.assert_close(
        loss_of(base, found).double(), torch.stack(values).mean(), rtol=1e-4, atol=1e-8
    )


def test_the_loss_is_the_formula_where_alpha_is_not_one() -> None:
    """A rescaled schedule: the same estimates at the same noise levels, the same weights."""
    denoiser = model(schedule=schedules.VPLinear())
    part = made(0, Teacher(denoiser, "none"), labels, SHORT, lambda s: denoiser).parts[0]
    values = []
    for x, t, label, guided in zip(part.x, part.t, part.cond, part.guided, strict=True):
        alpha, sigma = denoiser.schedule(float(t))
        level = float(sigma) / float(alpha)
        weight = (level**2 + 0.25) / (level * 0.5) ** 2
        values.append(
            weight * (denoiser(x[None], float(t), label[None])[0] - guided).square().mean()
        )
    torch.testing.assert_close(
        loss_of(denoiser, part), torch.stack(values).mean(), rtol=1e-4, atol=0
    )


def test_relative_errors_count_by_what_guidance_does(base: Denoiser, tmp_path: Path) -> None:
    """d along a path, level by level, by hand; of the student's own paths too."""
    relative = replace(SHORT, weighting="relative", student_from=0.0)
    assert made(0, Teacher(base), labels, SHORT, lambda s: base).parts[0].moved is None
    whole = replace(relative, samples=4, pairs=4, paths=2)
    for part in made(0, Teacher(base), labels, whole, lambda s: base).parts:
        assert part.moved is not None
        rows = zip(part.x, part.t.tolist(), part.cond, strict=True)
        plain = torch.cat([base(x[None], t, label[None]) for x, t, label in rows]).detach()
        weights = 1 / ((part.moved.double() / (part.scale - 1)) ** 2 + 0.005**2)
        wanted = (weights[:, None] * (plain - part.guided).double().square()).mean()
        found = loss_of(base, part)
        torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=0)
    kept = made(0, Teacher(base), labels, whole, lambda s: base)
    kept.save(tmp_path / "round.pt")
    parts = Round.load(tmp_path / "round.pt").parts
    both = [torch.cat([getattr(p, n) for p in parts if p.scale == parts[0].scale])
            for n in ("x", "t", "cond", "guided", "moved")]  # fmt: skip
    for t in both[1].unique().tolist():
        x, _, cond, guided, moved = (each[both[1] == t] for each in both)
        assert len(x) == 4 and len(moved.unique()) == 1, "of a level and its samples"
        away = (guided - base(x, t, cond).detach()).square().mean().sqrt()
        torch.testing.assert_close(moved[0], away, rtol=1e-4, atol=1e-8)


def test_where_guidance_does_nothing_errors_hardly_count(base: Denoiser) -> None:
    part = made(0, Teacher(base), labels, SHORT, lambda s: base).parts[0]
    still = replace(part, moved=torch.zeros(len(part)))
    wanted = (base.evaluate(part.x, base.at(1.0), part.cond) - part.guided).square()
    at = replace(still, t=torch.ones(len(part), dtype=torch.float64))
    torch.testing.assert_close(loss_of(base, at), (wanted / 0.005**2).mean(), rtol=1e-4, atol=0)
    assert loss_of(base, replace(still, scale=1.0)).isfinite()


def test_a_task_wears_the_scale_of_each_part(base: Denoiser) -> None:
    task = DistillationTask(base, SHORT, "")
    task.round = made(0, Teacher(base, "none"), labels, SHORT, lambda s: base)
    own = adapter(base)
    losses = []
    for index in (0, task.size - 1):
        part = task.round.parts[index]
        losses.append(loss_of(worn(base, own, part.scale), part))
    found = task.loss(own.change, torch.tensor([0, task.size - 1]), torch.Generator())
    torch.testing.assert_close(found, torch.stack(losses).mean())
    assert losses[0] != losses[1]
    built = task.build()
    assert isinstance(built, LowRank) and built.most == 4.0


def test_teachers(base: Denoiser) -> None:
    assert Teacher(base, "fd").engine(3.0, "euler", 4).guidance.weight == Guidance(3.0).weight
    golden = Teacher(base, lambda scale: model(seed=int(scale)), name="golden")
    x = torch.randn(2, 2)
    engine = golden.engine(3.0, "euler", 4)
    cond = torch.tensor([0, 1])
    torch.testing.assert_close(engine.denoiser(x, 1.0, cond), model(seed=3)(x, 1.0, cond))
    assert engine.modes == ("cond",) * 4
    torch.testing.assert_close(
        golden.guide(3.0, cond, [0, 1], [1.0])(x, 1.0), model(seed=3)(x, 1.0, cond).detach()
    )
    keys = {Teacher(base, name).key((1.0, 4.0)) for name in ("none", "vjp", "fd")}
    keys |= {golden.key((1.0, 4.0)), Teacher(base, "vjp").key((1.0, 3.0))}
    assert len(keys) == 5
    for bad, words in (
        ((base, 3), "guidance: is 3"),
        ((base, "fast"), "fast"),
        ((base.with_adapter(adapter(base)), "vjp"), "model: has an adapter"),
    ):
        with pytest.raises(InputError, match=words):
            Teacher(*bad).engine(2.0, "euler", 4)
    with pytest.raises(InputError, match="guidance: returned 2.0 for scale 2"):
        Teacher(base, lambda scale: scale).engine(2.0, "euler", 4)


def test_differences_are_of_the_guidance_itself(base: Denoiser) -> None:
    cond = torch.arange(8) % 2
    same = Adapter(LowRank.of(base.modules, 1.0, 4.0), (1.0, 4.0), belonging(base))
    teacher = Teacher(base, "vjp")
    (none,) = differences(base.with_adapter(same), teacher, cond, range(8), [3.0], steps=5)
    assert none.estimates == pytest.approx([1.0] * 5, rel=1e-5)
    assert none.samples == pytest.approx(1.0, rel=1e-5)
    assert none.evaluations == (5, 15), "two evaluations and a backward pass a step"
    levels = [row.noise_level for row in teacher.engine(3.0, "dpmpp_2m", 5).table.rows]
    assert none.levels == pytest.approx(levels)
    perfect = Teacher(base, lambda scale: worn(base, same, scale))
    (zero,) = differences(base.with_adapter(same), perfect, cond, range(8), [3.0], steps=3)
    assert zero.estimates == [0.0] * 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"scales": (0.5, 4)}, "scales: is 0.5"),
        ({"scales": (4, 1)}, r"scales: are \(4, 1\)"),
        ({"scales": 3}, "scales"),
        ({"scales": (4, 4)}, "scales"),
        ({"share": 0}, "share: is 0"),
        ({"share": 1.5}, "share"),
        ({"steps": 0}, "steps"),
        ({"pairs": 0}, "pairs"),
        ({"solver_steps": (8, 4)}, "solver_steps: are 8 to 4"),
        ({"solvers": ()}, "solvers: are none"),
        ({"solvers": ("fast",)}, "solvers"),
        ({"student_from": -1}, "student_from"),
        ({"lr": 0}, "lr"),
        ({"weighting": "even"}, "weighting"),
        ({"dtype": "float8"}, "dtype"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_are_checked(given: dict, words: str) -> None:
    with pytest.raises(InputError, match=f"^{words}"):
        Distillation(**given)
    assert "dpmpp_2m" in SOLVERS
