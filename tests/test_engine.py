"""The engine's promises: neutral scale, batch independence, what is evaluated, numbers and
seeds."""

from __future__ import annotations

import pytest
import torch
from nets import CLASSES, SHAPE, TinyNet, tiny

import reg_engine
from reg_engine import Engine, Guidance, Plan, schedules
from reg_engine.guidance.references import BadModel
from reg_engine.guidance.weights import Interval
from reg_engine.noise import SampleNoise
from reg_engine.ops import door as ops
from reg_engine.rectifiers import RECTIFIERS
from reg_engine.solvers import SOLVERS

QUIET = {"progress": False}
LABELS = torch.tensor([0, 1, 2, 0, 1])


def by_hand(
    solver: str,
    steps: int,
    labels: torch.Tensor,
    seeds: list[int],
    start: float = 1.0,
    options: dict[str, float] | None = None,
) -> torch.Tensor:
    """The conditional model alone, by the table's own definition, with no engine.

    `start` multiplies the start's noise.
    """
    from reg_engine.solvers import table

    denoiser = tiny()
    rows = table(solver, denoiser.schedule, steps, **(options or {}))
    noise = SampleNoise(seeds)
    x = start * rows.init_scale * noise.normal(torch.empty(len(seeds), *SHAPE))
    history: list[torch.Tensor] = []
    with torch.no_grad():
        for row in rows.rows:
            value = denoiser(x, row.t, labels)
            d = row.q * value if row.p == 0 else row.p * x + row.q * value
            history.insert(0, d)
            out = row.a * x
            for b, slope in zip(row.b, history, strict=False):
                out = out + b * slope if b else out
            x = out + row.c * noise.normal(x) if row.c else out
    return x


@pytest.mark.parametrize("solver", [s for s in SOLVERS if not s.startswith("flow")])
def test_scale_one_is_the_conditional_result_bitwise(solver: str) -> None:
    model = tiny()
    out = reg_engine.sample(
        model, LABELS, scale=1.0, solver=solver, steps=6, seeds=range(5), **QUIET
    )
    assert torch.equal(out.samples, by_hand(solver, 6, LABELS, list(range(5))))
    assert all(labels == LABELS.tolist() for labels in model.net.calls), "the reference was called"
    assert out.stats.nfe == len(model.net.calls)
    assert out.stats.modes == {"cond": len(model.net.calls)}


@pytest.mark.parametrize("rectify", [None, *RECTIFIERS])
@pytest.mark.parametrize("solver", ["heun", "euler_ancestral"])
def test_sample_k_does_not_depend_on_the_batch(rectify: str | None, solver: str) -> None:
    seeds, labels = list(range(100, 116)), torch.arange(16) % CLASSES
    runs = [
        reg_engine.sample(
            tiny(),
            labels,
            scale=3.0,
            rectify=rectify,
            solver=solver,
            steps=5,
            seeds=seeds,
            batch_size=size,
            **QUIET,
        ).samples
        for size in (1, 3, 16)
    ]
    # One network's rounding, carried through 5 steps and divided by the finite difference's step
    # (1e-2).
    tolerance = 2e-3 if rectify in ("fd", "fd_batched") else 2e-5
    for other in runs[1:]:
        assert (other - runs[0]).abs().max() <= tolerance * runs[0].abs().max()
    alone = reg_engine.sample(
        tiny(),
        labels[7:8],
        scale=3.0,
        rectify=rectify,
        solver=solver,
        steps=5,
        seeds=seeds[7:8],
        **QUIET,
    ).samples
    assert (alone - runs[0][7:8]).abs().max() <= tolerance * runs[0].abs().max()


def test_modes_skip_the_evaluations_they_say() -> None:
    model, steps = tiny(), 8
    engine = Engine(
        model, scale=2.0, rectify="fd", steps=steps, plan=Plan.interval(0.1, 2.0), **QUIET
    )
    levels = [row.sigma for row in engine.table.rows]
    modes = ["cond" if s >= 2 else "cfg" if s < 0.1 else "reg" for s in levels]
    assert set(modes) == {"cond", "cfg", "reg"}, "the test must see every mode"
    out = engine.sample(LABELS, seeds=range(5))
    assert out.stats.nfe == sum({"cond": 1, "cfg": 2, "reg": 3}[m] for m in modes)
    assert out.stats.modes == {m: modes.count(m) for m in set(modes)}
    evaluated = sum(len(labels) for labels in model.net.calls)
    assert evaluated == 5 * out.stats.nfe + out.stats.checks
    assert out.stats.checks == 3
    nulls = sum(labels.count(CLASSES) for labels in model.net.calls)
    assert nulls == 5 * (modes.count("cfg") + modes.count("reg"))


def test_interval_weight_leaves_out_the_reference_outside() -> None:
    model = tiny()
    guidance = Guidance(weight=Interval(3.0, 0.5, 5.0), rectify=None)
    out = reg_engine.sample(model, LABELS, guidance=guidance, steps=8, **QUIET)
    levels = [row.sigma for row in Engine(model, guidance=guidance, steps=8).table.rows]
    inside = sum(0.5 <= level <= 5 for level in levels)
    assert out.stats.nfe == len(levels) + inside
    assert 0 < inside < len(levels)


def test_autoguidance_equals_cfg_when_the_bad_model_is_the_null_label() -> None:
    """BadModel(net with the null label) is the unconditional reference by another road."""
    bad = BadModel(tiny(), cond=CLASSES)
    for rectify in (None, "vjp", "fd_batched", "jvp"):
        runs = [
            reg_engine.sample(
                tiny(),
                LABELS,
                guidance=Guidance(2.5, reference=r, rectify=rectify),
                steps=5,
                dtype=torch.float64,
                **QUIET,
            ).samples
            for r in (bad, reg_engine.Unconditional())
        ]
        assert torch.allclose(runs[0], runs[1], rtol=1e-4, atol=1e-5)


def test_stochastic_noise_is_the_same_for_every_rectifier() -> None:
    """`diagonal` draws probes from a stream of its own."""
    noise = [SampleNoise([3, 4]), SampleNoise([3, 4])]
    probes = SampleNoise([3, 4], "probes")
    like = torch.empty(2, 5)
    first = noise[0].normal(like)
    signs = probes.signs(like)
    assert torch.equal(noise[1].normal(like), first)
    assert torch.equal(noise[0].normal(like), noise[1].normal(like))
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert not torch.equal(first[0], first[1])


def test_parameters_and_mode_are_restored_also_after_an_error() -> None:
    net = TinyNet().train()
    net.label.weight.requires_grad_(False)
    before = [(p.requires_grad, p.clone()) for p in net.parameters()]
    reg_engine.sample(tiny(net=net), LABELS, scale=2.0, rectify="vjp", steps=3, **QUIET)

    class Failing(TinyNet):
        def forward(self, x, t, cond):  # type: ignore[no-untyped-def]
            assert not any(p.requires_grad for p in self.parameters())
            raise RuntimeError("boom")

    failing = Failing().train()
    with pytest.raises(RuntimeError, match="boom"):
        reg_engine.sample(tiny(net=failing), LABELS, scale=2.0, rectify="vjp", steps=3, **QUIET)
    assert net.training and failing.training
    assert all(p.requires_grad for p in failing.parameters())
    for (wanted, value), p in zip(before, net.parameters(), strict=True):
        assert p.requires_grad == wanted and torch.equal(p, value) and p.grad is None


def test_noise_argument_replaces_the_seeds_own_start() -> None:
    own = SampleNoise([7, 8]).normal(torch.empty(2, *SHAPE))
    runs = [
        reg_engine.sample(
            tiny(), [0, 1], scale=2.0, rectify=None, steps=4, seeds=s, noise=n, **QUIET
        )
        for s, n in (([7, 8], None), ([1, 2], own))
    ]
    assert torch.equal(runs[0].samples, runs[1].samples)


def test_every_batch_starts_from_its_own_rows_of_the_noise() -> None:
    own = SampleNoise(range(20, 25)).normal(torch.empty(5, *SHAPE))
    drawn, handed = (
        reg_engine.sample(
            tiny(), LABELS, rectify=None, steps=4, seeds=s, noise=n, batch_size=2, **QUIET
        ).samples
        for s, n in ((range(20, 25), None), (range(5), own))
    )
    assert torch.equal(drawn, handed)


def test_the_references_networks_are_frozen_too() -> None:
    seen: list[tuple[bool, bool]] = []

    class Bad(TinyNet):
        def forward(self, x, t, cond):  # type: ignore[no-untyped-def]
            seen.append((self.training, any(p.requires_grad for p in self.parameters())))
            return super().forward(x, t, cond)

    bad = Bad().train()
    guidance = Guidance(2.0, reference=BadModel(tiny(net=bad)), rectify="vjp")
    reg_engine.sample(tiny(), LABELS, guidance=guidance, steps=3, **QUIET)
    assert set(seen) == {(False, False)}
    assert bad.training and all(p.requires_grad for p in bad.parameters())


@pytest.mark.parametrize("solver", ["ddpm", "euler_ancestral", "heun"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_given_start_does_not_move_the_solvers_noise(solver: str, dtype: torch.dtype) -> None:
    """The seeds' own start, given, changes nothing; another meets the same noise in the steps."""
    own = SampleNoise([7, 8]).normal(torch.empty(2, *SHAPE))
    options = {"s_churn": 1.0} if solver == "heun" else {}
    choices = {"scale": 1.0, "solver": solver, "solver_options": options, "steps": 3}
    engine = Engine(tiny(), dtype=dtype, **choices, **QUIET)
    drawn = engine.sample([0, 1], seeds=[7, 8]).samples
    assert torch.equal(engine.sample([0, 1], seeds=[7, 8], noise=own).samples, drawn)
    other = engine.sample([0, 1], seeds=[7, 8], noise=torch.zeros_like(own)).samples
    assert not torch.equal(other, drawn)
    exact = by_hand(solver, 3, torch.tensor([0, 1]), [7, 8], 0.0, options).to(dtype)
    torch.testing.assert_close(other, exact, rtol=1e-4, atol=1e-4)  # by hand it is float32


def test_stream_gives_the_batches_of_sample() -> None:
    engine = Engine(tiny(), scale=2.0, rectify="fd", steps=3, batch_size=2, **QUIET)
    whole = engine.sample(LABELS, seeds=range(5)).samples
    parts = dict((rows.start, batch) for rows, batch in engine.stream(LABELS, range(5)))
    assert sorted(parts) == [0, 2, 4]
    assert torch.equal(torch.cat([parts[k] for k in sorted(parts)]), whole)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "flow", "sample", "edm"])
def test_another_schedule_is_the_same_ode(prediction: str) -> None:
    """A VP network sampled in sigma space follows the trajectory of the same noise levels."""
    vp = schedules.VPLinear(spacing="karras", prior="sigma")
    levels = vp.noise_level(vp.grid(9))
    edm = schedules.EDM(sigma_min=levels[-2], sigma_max=levels[0])
    model = tiny(prediction, vp, TinyNet().double())
    choices = {"scale": 2.0, "rectify": "vjp", "steps": 9, "dtype": torch.float64, **QUIET}
    for solver in ("heun", "dpmpp_2m", "euler_ancestral"):
        runs = [
            reg_engine.sample(model, [0, 1], schedule=schedule, solver=solver, **choices).samples
            for schedule in (edm, None)
        ]
        assert torch.allclose(runs[0], runs[1], rtol=1e-8, atol=1e-8), solver


def test_stats_say_what_ran() -> None:
    out = reg_engine.sample(tiny(), LABELS, scale=2.0, steps=4, **QUIET)
    data = out.stats.as_dict()
    assert data["estimator"] == "alternate" and "where it is due" in data["reason"]
    assert data["solver"] == "heun" and data["backend"] == ops.resolve("cpu")
    assert data["samples"] == 5 and data["backward"] == 0 and 7 < data["nfe"] <= 14
    assert data["seconds"] > 0 and data["peak_memory"] is None
    assert out.images.shape == (5, 4, 4, 1) and out.images.dtype == torch.uint8
