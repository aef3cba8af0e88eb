"""Independent condition guidance: what is drawn, of whom it depends, and what it estimates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nets import CLASSES, SHAPE, TinyNet, tiny
from torch import Tensor

import reg_engine
from reg_engine import ICG, Denoiser, Engine, Guidance, Guide, InputError, Term, schedules
from reg_engine.noise import SampleNoise

DOUBLE: dict[str, Any] = {
    "dtype": torch.float64, "progress": False, "solver": "euler", "steps": 5,
}  # fmt: skip


def drawn(reference: ICG, count: int = 400, rows: int = 12) -> Tensor:
    """The labels of `count` samples in `rows` evaluations, as the network is asked, (rows, N)."""
    net = TinyNet()
    engine = Engine(
        tiny(net=net, null_cond=None), guidance=Guidance(2.0, reference, None), progress=False,
        solver="euler", steps=rows,
    )  # fmt: skip
    net.calls.clear()
    engine.sample(torch.zeros(count, dtype=torch.long), seeds=range(7, 7 + count))
    assert all(len(call) == 2 * count for call in net.calls), "one batch serves both"
    assert all(call[count:] == [0] * count for call in net.calls)
    return torch.tensor([call[:count] for call in net.calls])


def test_every_condition_is_drawn_alike_and_independently() -> None:
    found = drawn(ICG())
    count = found.numel()
    shares = torch.bincount(found.flatten(), minlength=CLASSES) / count
    assert (shares - 1 / CLASSES).abs().max() < 4 * (CLASSES * count) ** -0.5
    # neighbours in time and in seed agree as often as chance has it
    for one, other in ((found[1:], found[:-1]), (found[:, 1:], found[:, :-1])):
        agree = (one == other).double().mean()
        assert abs(float(agree) - 1 / CLASSES) < 4 * (CLASSES * one.numel()) ** -0.5


def test_without_redrawing_a_sample_keeps_its_own() -> None:
    found = drawn(ICG(redraw=False))
    assert bool((found == found[0]).all())
    shares = torch.bincount(found[0], minlength=CLASSES) / 400
    assert (shares - 1 / CLASSES).abs().max() < 0.1


@pytest.mark.parametrize("redraw", [True, False])
def test_a_sample_depends_on_its_seed_alone(redraw: bool) -> None:
    guidance = Guidance(3.0, ICG(redraw=redraw), None)
    engine = Engine(tiny(net=TinyNet().double()), guidance=guidance, **DOUBLE)
    labels, seeds = torch.tensor([0, 1, 2, 0, 1]), [5, 3, 9, 4, 5]
    whole = engine.sample(labels, seeds).samples
    alone = torch.cat([engine.sample(labels[[k]], [seeds[k]]).samples for k in range(5)])
    torch.testing.assert_close(whole, alone)
    parts = Engine(tiny(net=TinyNet().double()), guidance=guidance, batch_size=2, **DOUBLE)
    torch.testing.assert_close(parts.sample(labels, seeds).samples, whole)
    stepped = list(engine.steps(labels, seeds))
    torch.testing.assert_close(stepped[-1].x_next, whole)
    other = engine.sample(labels, [6, 7, 8, 10, 11], noise=torch.ones(5, *SHAPE)).samples
    same = engine.sample(labels, seeds, noise=torch.ones(5, *SHAPE)).samples
    assert (other - same).abs().amax((1, 2, 3)).max() > 1e-3, "another seed, another condition"


def test_a_guide_draws_the_same_and_anew_after_a_reset() -> None:
    model, labels = tiny(net=TinyNet().double()), torch.tensor([0, 1, 2])
    guidance = Guidance(3.0, ICG(), None)
    engine = Engine(model, guidance=guidance, **DOUBLE)
    guide = Guide(model, labels, guidance=guidance)
    for seeds in ([0, 1, 2], [4, 5, 6]):
        guide.reset(seeds)
        for step in engine.steps(labels, seeds):
            torch.testing.assert_close(guide(step.x, step.t), step.guided)


def test_terms_share_their_batch_with_it() -> None:
    model, labels = tiny(net=TinyNet().double()), torch.tensor([0, 1, 2])
    one = Guidance(3.0, ICG(), None)
    two = Guidance(terms=(Term(2.0, ICG(), None), Term(2.0, ICG(), None)))
    runs = [reg_engine.sample(model, labels, guidance=g, **DOUBLE) for g in (one, two)]
    torch.testing.assert_close(runs[0].samples, runs[1].samples)


class TwoClasses(TinyNet):
    """E[x_0 | x_t] of two Gaussians of deviation 1, by EDM."""

    means = torch.tensor([[1.0], [-2.0]]).double()

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return (x + t[:, None] ** 2 * self.means[cond]) / (1 + t[:, None] ** 2)


def test_the_mean_over_seeds_is_the_papers_formula() -> None:
    """Eq. 24: E[cond - ref] = q(other) (mean_0 - mean_1) / (1 + sigma^2), in score; here times
    sigma^2."""
    edm = schedules.EDM()
    model = Denoiser(TwoClasses(), "sample", edm, (1,), num_classes=2, dtype=torch.float64)
    guide = Guide(
        model, torch.zeros(20_000, dtype=torch.long), seeds=range(20_000),
        guidance=Guidance(2.0, ICG(), None),
    )  # fmt: skip
    x, sigma = torch.zeros(20_000, 1).double(), 1.5
    plain = (sigma**2 * 1.0) / (1 + sigma**2)
    moved = guide(x, sigma) - plain
    full = sigma**2 * 3.0 / (1 + sigma**2)
    values = sorted({round(float(v), 9) for v in moved})
    assert values == pytest.approx([0.0, full])
    assert float(moved.mean()) == pytest.approx(full / 2, abs=4 * full / 2 / 20_000**0.5)


def test_conditions_of_ones_own_are_drawn_whole() -> None:
    seen: list[dict[str, Any]] = []

    def net(x: Tensor, t: Tensor, cond: dict[str, Any]) -> Tensor:
        seen.append(cond)
        return 0.5 * x + cond["a"].sum(1)[:, None] + cond["b"][:, :, 0]

    model = Denoiser(net, "sample", schedules.EDM(), (3,))
    pool = {"a": torch.arange(8.0).reshape(4, 2), "b": torch.arange(12.0).reshape(4, 3, 1)}
    cond = {"a": torch.zeros(6, 2), "b": torch.zeros(6, 3, 1)}
    guidance = Guidance(2.0, ICG(pool), None)
    reg_engine.sample(model, cond, guidance=guidance, progress=False, solver="euler", steps=4)
    rows = []
    for call in seen:
        for a, b in zip(call["a"][:6], call["b"][:6], strict=True):
            rows.append(int(a[0]) // 2)
            assert torch.equal(a, pool["a"][rows[-1]]) and torch.equal(b, pool["b"][rows[-1]])
    assert set(rows) == {0, 1, 2, 3}
    for some in ([1, 2], torch.tensor([[1], [2]], dtype=torch.int32)):
        assert set(drawn(ICG(some)).flatten().tolist()) == {1, 2}


@pytest.mark.parametrize(
    ("conditions", "says"),
    [
        (torch.zeros(3, 2), "dtype"),
        ([0, 9], "out of range"),
        ({"a": torch.zeros(2, 2)}, "unlike"),
        (torch.zeros(0, dtype=torch.long), "unlike"),
        ("a text", "prompts"),
    ],
)
def test_conditions_that_do_not_fit_are_named(conditions: Any, says: str) -> None:
    with pytest.raises(InputError, match=f"^conditions: .*{says}"):
        reg_engine.sample(tiny(), [0, 1], guidance=Guidance(2.0, ICG(conditions), None), **DOUBLE)


def test_a_model_without_classes_needs_conditions() -> None:
    model = Denoiser(lambda x, t, cond: x, "sample", schedules.EDM(), (3,))
    with pytest.raises(InputError, match="^conditions: are none"):
        reg_engine.sample(model, torch.zeros(2, 3), guidance=Guidance(2.0, ICG(), None), **DOUBLE)
    with pytest.raises(InputError, match="^redraw"):
        ICG(redraw=1)  # type: ignore[arg-type]


def test_a_caller_without_seeds_gets_the_first_ones() -> None:
    call = tiny(), torch.tensor([0, 1, 2])
    cpu = torch.device("cpu")
    found = ICG().conditioning(*call, 3, cpu)
    assert torch.equal(found, ICG().drawn(*call, [0, 1, 2], cpu))  # type: ignore[arg-type]


@pytest.mark.parametrize("rectify", ["vjp", "jvp", "fd_batched"])
def test_embeddings_are_drawn_beside_derivatives(rectify: str) -> None:
    def net(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return torch.tanh(x * cond)

    model = Denoiser(net, "sample", schedules.EDM(), (3,))
    pool = torch.linspace(0.1, 1.0, 12, dtype=torch.float64).reshape(4, 3)
    choices = {**DOUBLE, "guidance": Guidance(2.0, ICG(pool, redraw=False), rectify)}
    found = reg_engine.sample(model, pool[[0, 3]], **choices).samples
    again = reg_engine.sample(model, pool[[0, 3]], **choices).samples
    assert torch.equal(found, again) and found.isfinite().all()


def test_drawn_numbers_are_their_seeds() -> None:
    together = SampleNoise([3, 4, 5], "conditions").below(10**6)
    assert together == [SampleNoise([k], "conditions").below(10**6)[0] for k in (3, 4, 5)]
    assert len(set(together)) == 3 and all(0 <= v < 10**6 for v in together)
