"""The flow as a function of samples: exact velocities, solvers, guidance, bad input."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nets import CLASSES, SHAPE, TinyNet, tiny
from torch import Tensor

import reg_engine
from reg_engine import SOLVERS, Denoiser, InputError, NumericalError, schedules
from reg_engine.postprocess import FlowTask, Postprocess, interpolate, pool

SPREAD, CENTRE, NARROW = 2.0, 3.0, 0.5  # samples N(0, SPREAD^2), real ones N(CENTRE, NARROW^2)
FIXED = ["flow_euler", "flow_heun", "euler", "ddim", "heun", "dpmpp_2m", "unipc"]


def between_gaussians(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    """E[sample - real | x_t] of independent normal laws: the exact velocity for k = all real."""
    t = t.reshape(-1, *[1] * (x.dim() - 1)).to(x.dtype)
    gain = (t * SPREAD**2 - (1 - t) * NARROW**2) / ((t * SPREAD) ** 2 + ((1 - t) * NARROW) ** 2)
    return gain * (x - (1 - t) * CENTRE) - CENTRE


def flow(
    solver: str = "dopri5",
    steps: int = 32,
    net: Callable[..., Tensor] = between_gaussians,
    **kw: Any,
) -> Postprocess:
    return Postprocess(Denoiser(net, "flow", schedules.Flow(), (3,)), solver, steps, **kw)


def samples(count: int = 9, seed: int = 0, shape: tuple[int, ...] = (3,)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return SPREAD * torch.randn(count, *shape, generator=generator, dtype=torch.float64)


def test_the_path_starts_at_the_sample_and_ends_at_the_real_one() -> None:
    x, real = samples(4, 1, (2, 2)), samples(4, 2, (2, 2))
    start, velocity = interpolate(x, real, torch.ones(4))
    end, same = interpolate(x, real, torch.zeros(4))
    assert torch.equal(start, x) and torch.equal(end, real)
    assert torch.equal(velocity, x - real) and torch.equal(same, velocity)
    # Eq. 12 in the paper's own time t: t NN + (1 - t) x, and its d/dt is Eq. 11's NN - x.
    paper = torch.tensor([0.1, 0.5, 0.7, 0.9])
    middle, velocity = interpolate(x, real, 1 - paper)
    t = paper.reshape(4, 1, 1)
    assert torch.allclose(middle, t * real + (1 - t) * x, atol=1e-7)
    assert torch.allclose(x - velocity, real)


@pytest.mark.parametrize("solver", ["dopri5", "flow_heun", "heun", "dpmpp_2m"])
def test_the_exact_velocity_carries_one_gaussian_to_the_other(solver: str) -> None:
    """The map is known: x -> CENTRE + NARROW / SPREAD x."""
    x = samples()
    moved = flow(solver, 256)(x)
    assert torch.allclose(moved, CENTRE + NARROW / SPREAD * x, atol=2e-3)
    assert moved.dtype == x.dtype and moved.shape == x.shape


def test_dopri5_agrees_with_many_fixed_steps() -> None:
    x = samples()
    tight = flow(rtol=1e-9, atol=1e-9)(x)
    exact = CENTRE + NARROW / SPREAD * x
    assert (tight - exact).abs().max() < 1e-6
    gaps = [(flow("flow_heun", n)(x) - exact).abs().max() for n in (128, 256, 512)]
    assert gaps[2] < 1e-4 and gaps[0] > 3.5 * gaps[1] > 3.5**2 * gaps[2], "second order"
    assert (flow()(x) - exact).abs().max() < 5e-3, "at the default tolerance"


@pytest.mark.parametrize("solver", FIXED)
def test_every_solver_starts_at_the_samples_themselves(solver: str) -> None:
    """A flow at rest returns what it was given: the first state is not scaled."""
    x = samples().float()
    rest = flow(solver, 5, net=lambda x, t, cond: 0 * x)
    assert torch.allclose(rest(x), x, atol=1e-6)
    straight = flow(solver, 5, net=lambda x, t, cond: torch.ones_like(x))
    assert torch.allclose(straight(x), x - 1, atol=1e-5)


def test_the_cost_is_counted() -> None:
    calls: list[int] = []

    def net(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        calls.append(len(x))
        assert cond.tolist() == [0] * len(x) and float(t.min()) >= 0 and float(t.max()) <= 1
        return between_gaussians(x, t, cond)

    for solver in ("dopri5", "flow_heun"):
        for size in (None, 4):
            calls.clear()
            moving = flow(solver, 8, net=net, batch_size=size)
            moving(samples(9))
            assert moving.stats.nfe * 9 == pytest.approx(sum(calls))
            assert moving.stats.samples == 9 and moving.stats.seconds > 0
            assert moving.stats.solver == solver
    assert moving.stats.nfe == 15  # 8 steps of Heun, the last of them Euler's


def test_dopri5_takes_more_evaluations_for_less_error() -> None:
    runs = [flow(rtol=tolerance, atol=tolerance) for tolerance in (1e-3, 1e-5, 1e-7)]
    for run in runs:
        run(samples())
    assert runs[0].stats.nfe < runs[1].stats.nfe < runs[2].stats.nfe


def test_fixed_steps_do_not_depend_on_the_batch() -> None:
    x = samples(11).float()
    whole, parts = (flow("flow_heun", 16, batch_size=size)(x) for size in (None, 3))
    assert torch.allclose(whole, parts, atol=1e-6)
    adaptive = [flow(batch_size=size)(x) for size in (None, 1)]
    assert torch.allclose(*adaptive, atol=5e-3), "as far as its tolerances allow"


class LabelledNet(TinyNet):
    """A conditional velocity with a null label."""

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return 0.3 * super().forward(x, t, cond)


def conditional(solver: str = "flow_heun", **choices: Any) -> Postprocess:
    return Postprocess(tiny("flow", schedules.Flow(), LabelledNet()), solver, 8, **choices)


@pytest.mark.parametrize("solver", ["dopri5", "flow_heun"])
def test_a_null_label_for_each_sample_goes_with_the_batch(solver: str) -> None:
    x, labels, nulls = samples(5, 5, SHAPE).float(), [0, 1, 2, 0, 1], [3, 2, 0, 1, 3]

    def moved(null: Any, rows: slice, batch_size: int | None = None) -> Tensor:
        model = Denoiser(
            LabelledNet(), "flow", schedules.Flow(), SHAPE, null_cond=null, num_classes=CLASSES
        )
        moving = Postprocess(model, solver, 8, 2.5, batch_size=batch_size)
        return moving(x[rows], labels[rows])

    parts = moved(torch.tensor(nulls), slice(0, 5), 2)
    for k in range(5):
        alone = moved(nulls[k], slice(k, k + 1))
        assert torch.allclose(parts[k], alone[0], rtol=1e-3, atol=5e-3)


@pytest.mark.parametrize("solver", ["dopri5", "flow_heun"])
def test_the_flows_own_scale_guides_it(solver: str) -> None:
    x, labels = samples(6, 3, SHAPE).float(), torch.tensor([0, 1, 2, 0, 1, 2])
    plain, guided = (conditional(solver, scale=scale) for scale in (1.0, 2.5))
    one, more = plain(x, labels), guided(x, labels)
    assert not torch.allclose(one, more, atol=1e-3)
    assert not torch.allclose(one, plain(x, labels.flip(0)), atol=1e-3), "labels matter"
    net = LabelledNet()

    def exact(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:  # Eq. 10, written out
        null = torch.full_like(labels, CLASSES)
        ref = net(x, t, null)
        return ref + 2.5 * (net(x, t, labels) - ref)

    by_hand = Postprocess(Denoiser(exact, "flow", schedules.Flow(), SHAPE), solver, 8)
    assert torch.allclose(by_hand(x), more, atol=1e-5)
    if solver == "flow_heun":
        assert guided.stats.nfe == 2 * plain.stats.nfe == 30


def test_scale_one_never_asks_for_the_null_label() -> None:
    for solver in ("dopri5", "flow_heun"):
        moving = conditional(solver)
        moving(samples(2, 4, SHAPE).float(), [0, 1])
        assert all(CLASSES not in labels for labels in moving.denoiser.net.calls)


def test_the_network_is_evaluated_in_eval_mode_and_given_back() -> None:
    for solver in ("dopri5", "flow_heun"):
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5)).train()
        moving = flow(solver, 4, net=lambda x, t, cond, net=net: net(x))
        moving.denoiser = Denoiser(_Wrapped(net), "flow", schedules.Flow(), (3,))
        x = samples().requires_grad_()
        moved = moving(x)
        assert torch.allclose(moved, moving(x)), "dropout was on"
        assert not moved.requires_grad and net.training


class _Wrapped(torch.nn.Module):
    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return self.net(x)


def test_pool_takes_equal_shares() -> None:
    sets = [torch.full((20, 2), float(scale)) for scale in range(3)]
    labels = [torch.arange(20) + 100 * scale for scale in range(3)]
    drawn, own = pool(sets, 20, torch.Generator().manual_seed(0), labels)
    assert [int((drawn == s).all(1).sum()) for s in range(3)] == [7, 7, 6]
    assert own is not None and len(own.unique()) == 20, "without replacement"
    assert torch.equal(own // 100, drawn[:, 0].long()), "labels stay with their samples"
    assert pool(sets, 20, torch.Generator().manual_seed(0))[1] is None
    with pytest.raises(InputError, match="sets: number 0 has 20 samples of 21"):
        pool(sets, 63, torch.Generator())
    with pytest.raises(InputError, match="sets: is empty"):
        pool([], 4, torch.Generator())


def test_bad_flows_are_refused() -> None:
    with pytest.raises(InputError, match="denoiser: is a edm"):
        Postprocess(tiny())
    with pytest.raises(InputError, match="denoiser: is a TinyNet"):
        Postprocess(TinyNet())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="denoiser: is on VPLinear"):
        Postprocess(tiny("flow", schedules.VPLinear()))
    with pytest.raises(InputError, match="solver: unknown name 'dopri'. Did you mean 'dopri5'"):
        flow("dopri")
    for name in ("ddpm", "euler_ancestral", "dpmpp_2m_sde"):
        with pytest.raises(InputError, match=f"solver: {name!r} adds noise"):
            flow(name)
    with pytest.raises(InputError, match="'pndm' cannot start at t = 1"):
        flow("pndm")
    with pytest.raises(InputError, match="scale: is 2.0"):
        flow(scale=2.0)
    for wrong in ({"rtol": 0.0}, {"atol": 2}, {"steps": 0}, {"batch_size": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            flow(**wrong)
    assert set(FIXED) | {"ddpm", "euler_ancestral", "dpmpp_2m_sde", "pndm"} == set(SOLVERS)


def test_bad_samples_are_refused() -> None:
    with pytest.raises(InputError, match=r"samples: are \(9, 4\). Give \(N, 3\)"):
        flow()(samples(shape=(4,)))
    with pytest.raises(InputError, match="samples: are torch.int64"):
        flow()(torch.zeros(2, 3, dtype=torch.long))
    with pytest.raises(InputError, match="samples: have NaN or Inf"):
        flow()(samples() / 0)
    with pytest.raises(InputError, match=r"cond: is missing. Give labels in \[0, 3\)"):
        conditional()(samples(2, 5, SHAPE))
    with pytest.raises(InputError, match=r"cond: labels \[7\] are out of range"):
        conditional()(samples(2, 5, SHAPE), [0, 7])
    for solver in ("dopri5", "flow_heun"):
        with pytest.raises(NumericalError, match="NaN or Inf"):
            flow(solver, 4, net=lambda x, t, cond: x / 0 * 0)(samples())
    with pytest.raises(NumericalError, match="cannot hold rtol 1e-05.*flow_heun"):
        flow(net=lambda x, t, cond: x / t[0])(samples().float())  # singular at t = 0


def test_without_torchdiffeq(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(InputError, match=r"pip install 'reg-engine\[postprocess\]'.*flow_heun"):
        flow()
    assert flow("flow_heun")(samples()).shape == (9, 3)


def test_a_task_needs_parts_that_fit() -> None:
    x, real, near = torch.randn(6, 2), torch.randn(5, 2), torch.zeros(6, 1, dtype=torch.long)
    net = TinyNet()
    with pytest.raises(InputError, match="samples: are"):
        FlowTask(x, torch.randn(5, 3), near, net)
    with pytest.raises(InputError, match="samples: are"):
        FlowTask(x, real, near[:5], net)
    with pytest.raises(InputError, match=r"labels: are torch.int64 \(5,\) for 6"):
        FlowTask(x, real, near, net, labels=torch.zeros(5, dtype=torch.long))
    with pytest.raises(InputError, match=r"labels: are not all in \[0, 2\)"):
        FlowTask(x, real, near, net, labels=torch.full((6,), 2), num_classes=2)
    with pytest.raises(InputError, match="labels: are missing"):
        FlowTask(x, real, near, net, num_classes=2)
    with pytest.raises(InputError, match="label_dropout: is 1"):
        FlowTask(x, real, near, net, label_dropout=1)


def test_it_composes_with_sample() -> None:
    """engine.sample(postprocess=flow) is the flow applied to what it would have returned."""
    labels = torch.tensor([0, 1, 2, 0, 1])
    choices = {"scale": 3.0, "rectify": None, "steps": 4, "progress": False}
    before = reg_engine.sample(tiny(), labels, **choices)
    moving = conditional()
    wanted = moving(before.samples, labels)
    for size in (None, 2):
        after = reg_engine.sample(tiny(), labels, postprocess=moving, batch_size=size, **choices)
        assert torch.allclose(after.samples, wanted, atol=1e-5)
        assert not torch.allclose(after.samples, before.samples, atol=1e-2)
        assert after.stats.nfe == before.stats.nfe and after.stats.postprocess_nfe == 15
        assert after.stats.postprocess_seconds > 0 and before.stats.postprocess_seconds == 0
    adaptive = reg_engine.sample(tiny(), labels, postprocess=conditional("dopri5"), **choices)
    assert adaptive.stats.postprocess_nfe > 0 and adaptive.samples.isfinite().all()
