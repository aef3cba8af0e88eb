"""A learned variance: whose rows are heard, what noise follows, and diffusers' scheduler."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from nets import CLASSES, SHAPE, tiny
from rerun import Rerun
from torch import Tensor, nn

from reg_engine import Denoiser, Engine, Guidance, InputError, Plan, sample, schedules
from reg_engine.loop.graphs import Graphs
from reg_engine.networks.variance import Heard, halves
from reg_engine.rectifiers.forward import JVP
from reg_engine.rectifiers.lazy import Alternate, Lazy
from reg_engine.solvers import table

LABELS, SEEDS = torch.tensor([0, 2, 1]), [3, 11, 4]


class Both(nn.Module):
    """A small network's epsilon, and a variance that depends on state, time and label."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tiny().net

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        says = (0.7 * x + 0.1 * cond.reshape(-1, 1, 1, 1).to(x.dtype)).tanh()
        return torch.cat([self.net(x, t, cond), says], 1)


def model(**choices: Any) -> Denoiser:
    options = {"null_cond": CLASSES, "num_classes": CLASSES, "learned_variance": True, **choices}
    return Denoiser(Both().double(), "epsilon", schedules.VPLinear(), SHAPE, **options)


EXACT: dict[str, Any] = {
    "progress": False, "dtype": torch.float64, "steps": 6, "solver": "ddpm",
    "solver_options": {"variance": "learned"},
}  # fmt: skip


def written_out(scale: float) -> Tensor:
    """The chain of improved DDPM, from the same start and noise, for CFG."""
    from reg_engine.noise import SampleNoise

    denoiser = model()
    (net,) = denoiser.modules
    rows = table("ddpm", denoiser.schedule, 6).rows
    draws = SampleNoise(SEEDS).ahead(torch.zeros(3, *SHAPE, dtype=torch.float64), 6)
    x = next(draws).clone()
    for row in rows:
        t = torch.full((3,), row.t, dtype=torch.float64)
        eps, v = net(x, t, LABELS).chunk(2, 1)
        ref = net(x, t, torch.full((3,), CLASSES)).chunk(2, 1)[0]
        guided = ref + scale * (eps - ref)
        start = (x - row.sigma * guided) / row.alpha
        # DDPM, Eq. 7, in alpha-bars.
        now, after = row.alpha**2, row.alpha_s**2
        beta = 1 - now / after
        mean = after**0.5 * beta / (1 - now) * start
        mean = mean + (now / after) ** 0.5 * (1 - after) / (1 - now) * x
        if row.sigma_s:
            small = beta * (1 - after) / (1 - now)
            share = (v + 1) / 2
            log_variance = share * math.log(beta) + (1 - share) * math.log(small)
            mean = mean + (log_variance / 2).exp() * next(draws)
        x = mean
    return x


@pytest.mark.parametrize("scale", [1.0, 3.0, 0.0])
def test_the_chain_is_improved_ddpms(scale: float) -> None:
    found = sample(model(), LABELS, seeds=SEEDS, scale=scale, rectify=None, **EXACT).samples
    torch.testing.assert_close(found, written_out(scale), rtol=1e-9, atol=1e-9)
    other = {**EXACT, "solver_options": {"variance": "small"}}
    small = sample(model(), LABELS, seeds=SEEDS, scale=scale, rectify=None, **other).samples
    assert (small - found).abs().max() > 1e-2


def heard_by(rectify: Any, **choices: Any) -> list[Tensor]:
    """The gain of the noise at every row, and the states it belongs to."""
    kept: list[Tensor] = []
    gain = Heard.gain

    def noted(self: Heard, spread: Tensor) -> Tensor:
        assert self.variance is not None
        kept.append(self.variance)
        return gain(self, spread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Heard, "gain", noted)
        engine = Engine(model(), guidance=Guidance(3.0, rectify=rectify), **{**EXACT, **choices})
        states = [(step.x, step.t) for step in engine.steps(LABELS, SEEDS)]
    wanted = [(0.7 * x + 0.1 * LABELS.reshape(-1, 1, 1, 1).double()).tanh() for x, _ in states]
    assert len(kept) == len(states) - 1  # none at the last row, which adds no noise
    for found, exact in zip(kept, wanted, strict=False):
        torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-9)
    return kept


ESTIMATORS = [
    "paper", "vjp", "fd", "fd_batched", "diagonal", "jvp", "diagonal_jvp", "lazy", "alternate",
    "blend", JVP(along="delta"), JVP(along="ones"), JVP(apart=True), Lazy(probe="jvp"),
    Alternate(probe="jvp"),
]  # fmt: skip


@pytest.mark.parametrize("rectify", [None, *ESTIMATORS], ids=str)
def test_every_estimator_hears_cond_at_the_state(rectify: Any) -> None:
    heard_by(rectify)


def test_a_plan_hears_it_at_every_row() -> None:
    heard_by("fd_batched", plan=Plan((1.0, 3.0), ("cond", "reg", "cfg")))


@pytest.mark.parametrize("rectify", [None, "fd_batched", "vjp"])
def test_a_captured_run_is_the_eager_one(rectify: Any) -> None:
    choices = {"guidance": Guidance(3.0, rectify=rectify), **EXACT}
    eager = Engine(model(), **choices).sample(LABELS, SEEDS).samples
    engine = Engine(model(), **choices)
    engine._graphs = Graphs(Rerun(), always=True)
    assert torch.equal(engine.sample(LABELS, SEEDS).samples, eager)


def test_diffusers_chain_is_the_same() -> None:
    """DDPMScheduler(variance_type="learned_range"), step by step with its own noise."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(
        variance_type="learned_range", clip_sample=False, timestep_spacing="linspace"
    )
    scheduler.alphas_cumprod = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(
        0
    )
    scheduler.set_timesteps(8)
    schedule, (solver, options) = (
        schedules.from_diffusers(scheduler),
        schedules.solver_from_diffusers(scheduler),
    )
    assert (solver, options["variance"]) == ("ddpm", "learned")
    rows = table(solver, schedule, 8, **options).rows
    generator = torch.Generator().manual_seed(0)
    x, eps, v, noise = (
        torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=generator) for _ in range(4)
    )
    v = v.tanh()
    for row, t in zip(rows, scheduler.timesteps, strict=True):
        zero = noise * 0
        means = []
        for drawn in (zero, noise):
            with pytest.MonkeyPatch.context() as patch:
                module = "diffusers.schedulers.scheduling_ddpm.randn_tensor"
                patch.setattr(module, lambda *a, drawn=drawn, **k: drawn)
                given = torch.cat([eps, v], 1)
                means.append(scheduler.step(given, t, x).prev_sample)
        heard = Heard()
        heard.keep(v, 0, 2)
        gain = heard.gain(torch.tensor([row.spread], dtype=torch.float64))
        torch.testing.assert_close(means[1] - means[0], row.c * gain * noise, rtol=1e-8, atol=1e-9)
        start = (x - row.sigma * eps) / row.alpha
        torch.testing.assert_close(means[0], row.a * x + row.b[0] * start, rtol=1e-8, atol=1e-8)
    assert any(row.spread > 0.01 for row in rows)


def test_spread_is_from_the_posteriors_deviation_to_beta() -> None:
    small, large, learned = (
        table("ddpm", schedules.VPLinear(), 10, variance=v).rows
        for v in ("small", "large", "learned")
    )
    for one, two, row in zip(small, large, learned, strict=True):
        assert row.c == one.c
        heard = Heard()
        heard.keep(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64), 0, 3)
        ends = row.c * heard.gain(torch.tensor(row.spread, dtype=torch.float64))
        middle = (one.c * two.c) ** 0.5
        assert ends.tolist() == pytest.approx([one.c, middle, two.c], rel=1e-12)
    assert all(a.spread >= b.spread for b, a in pairwise(learned[:-1]))


def test_what_was_said_first_counts() -> None:
    heard, first = Heard(), torch.arange(6.0).reshape(6, 1)
    heard.keep(None, 0, 2)
    heard.keep(first, None, 2)
    assert heard.variance is None
    heard.keep(first, 1, 2)
    assert heard.variance is not None and heard.variance[:, 0].tolist() == [2.0, 3.0]
    heard.keep(-first, 0, 2)
    assert heard.variance[:, 0].tolist() == [2.0, 3.0]
    other = Heard()
    other.keep(first, torch.tensor([5, 0]), 2)
    assert other.variance is not None and other.variance[:, 0].tolist() == [5.0, 0.0]


def test_it_is_dropped_elsewhere() -> None:
    """An ODE solver sees the prediction alone."""
    options = {"progress": False, "dtype": torch.float64, "steps": 4, "solver": "ddim"}
    plain = Denoiser(
        lambda x, t, cond: model_net(x, t, cond)[:, : SHAPE[0]],
        "epsilon", schedules.VPLinear(), SHAPE, null_cond=CLASSES, num_classes=CLASSES,
        dtype=torch.float64,
    )  # fmt: skip
    model_net = Both().double()
    for rectify in (None, "vjp"):
        guidance = Guidance(2.0, rectify=rectify)
        both = sample(model(), LABELS, guidance=guidance, **options).samples
        one = sample(plain, LABELS, guidance=guidance, **options).samples
        torch.testing.assert_close(both, one, rtol=1e-9, atol=1e-9)


def test_errors() -> None:
    with pytest.raises(InputError, match="variance") as caught:
        sample(tiny(), LABELS, **EXACT)
    assert caught.value.argument == "variance"
    single = Denoiser(
        lambda x, t, c: x, "epsilon", schedules.VPLinear(), SHAPE, learned_variance=True
    )
    with pytest.raises(InputError, match="learned_variance"):
        sample(single, None, seeds=[0], scale=1.0, progress=False, steps=2)
    with pytest.raises(InputError, match="learned_variance"):
        halves(None, torch.zeros(1, 2))
    with pytest.raises(InputError, match="learned_variance"):
        Denoiser(lambda x, t, c: x, "epsilon", schedules.VPLinear(), SHAPE, learned_variance=2)
