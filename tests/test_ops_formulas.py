"""The arithmetic against its formulas, written out once more in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from reg_engine.ops import formulas
from reg_engine.ops.coefficients import COLUMNS, FIRST_B


def tensors(count: int, shape: tuple[int, ...] = (3, 2, 5)) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(shape, dtype=torch.float64, generator=g) for _ in range(count)]


def table_of(b: tuple[float, ...], **values: float) -> torch.Tensor:
    """Three rows, of which row 1 holds the values and the others NaN."""
    table = torch.full((3, FIRST_B + len(b)), torch.nan, dtype=torch.float64)
    values.setdefault("limit", math.inf)
    numbers = [*(values.get(name, 0.0) for name in COLUMNS), *b]
    table[1] = torch.tensor(numbers, dtype=torch.float64)
    return table


def test_combine_knows_every_kind_of_term() -> None:
    cond, ref, term = tensors(3)
    wanted = {
        (True, False): cond + 1.5 * (cond - ref),
        (True, True): cond + 1.5 * term * (cond - ref),
        (False, True): cond + 1.5 * term,
    }
    for (with_ref, with_term), value in wanted.items():
        found = formulas.combine(cond, ref if with_ref else None, term if with_term else None, 1.5)
        assert torch.allclose(found, value, rtol=1e-14)
    assert torch.equal(formulas.combine(cond, None, None, 3.0), cond)


def test_a_neutral_weight_returns_cond_and_looks_at_nothing_else() -> None:
    cond, ref = tensors(2)
    assert torch.equal(formulas.combine(cond, torch.full_like(ref, torch.nan), None, 0.0), cond)
    table = table_of((1.0,), w=0.0, out=1.0, q=1.0)
    found = formulas.guided_step(
        ref, cond, table, torch.tensor(1), ref=torch.full_like(ref, torch.nan)
    )
    assert torch.equal(found, cond)


def test_half_precision_is_rounded_once() -> None:
    cond, ref = (t.half() for t in tensors(2))
    wanted = (cond.float() + 2.5 * (cond.float() - ref.float())).half()
    assert torch.equal(formulas.combine(cond, ref, None, 2.5), wanted)


def test_channels_beyond_the_guided_ones_are_conds() -> None:
    cond, ref = tensors(2, (2, 4, 3))
    found = formulas.combine(cond, ref, None, 2.0, channels=3)
    assert torch.equal(found[:, 3:], cond[:, 3:])
    assert torch.allclose(found[:, :3], (3 * cond - 2 * ref)[:, :3])
    assert torch.equal(formulas.combine(cond, ref, None, 2.0, channels=0), cond)


@pytest.mark.parametrize("step", [1])
def test_guided_step_is_the_formula(step: int) -> None:
    x, cond, ref, term, noise, *ring = tensors(8)
    history = torch.stack(ring)
    before = history.clone()
    gain = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    table = table_of(
        (0.2, 0.0, -0.4), w=1.5, skip=0.6, out=-1.1, p=0.3, q=-0.7, a=0.9, c=0.1, c_in=9.0
    )
    x_s = formulas.guided_step(
        x,
        cond,
        table,
        torch.tensor([step]),
        ref=ref,
        term=term,
        gain=gain,
        noise=noise,
        history=history,
    )
    guided = gain.reshape(3, 1, 1) * (cond + 1.5 * term * (cond - ref))
    d = 0.3 * x - 0.7 * (0.6 * x - 1.1 * guided)
    wanted = 0.9 * x + 0.2 * d - 0.4 * before[(step - 2) % 3] + 0.1 * noise
    assert torch.allclose(x_s, wanted, rtol=1e-12, atol=1e-14)
    assert torch.allclose(history[1], d, rtol=1e-12, atol=1e-14)
    assert torch.equal(history[[0, 2]], before[[0, 2]])


def test_the_estimate_is_clipped_within_the_step() -> None:
    """After skip and out: clipped, and `keep` times what was cut off on top."""
    x, cond = tensors(2)
    row = {"skip": 0.6, "out": -1.1, "q": 1.0, "limit": 0.5, "keep": 0.25}
    found = formulas.guided_step(x, cond, table_of((1.0,), **row), torch.tensor(1))
    denoised = 0.6 * x - 1.1 * cond
    within = denoised.clamp(-0.5, 0.5)
    assert (denoised.abs() > 0.5).any() and (denoised.abs() < 0.5).any()
    assert torch.allclose(found, within + 0.25 * (within - denoised), rtol=1e-14, atol=1e-15)


def test_each_sample_has_its_own_weight() -> None:
    x, cond, ref, term = tensors(4)
    weight = torch.tensor([0.0, 1.5, -2.0], dtype=torch.float64)
    table, step = table_of((1.0,), w=9.0, out=1.0, q=1.0), torch.tensor(1)
    ref[0] = torch.nan
    found = formulas.guided_step(x, cond, table, step, ref=ref, term=term, weight=weight)
    assert torch.equal(found[0], cond[0])
    for i in (1, 2):
        wanted = cond[i] + weight[i] * term[i] * (cond[i] - ref[i])
        assert torch.allclose(found[i], wanted, rtol=1e-14)


def test_samples_that_are_not_finite_are_marked() -> None:
    x, cond = tensors(2)
    cond[1, 0, 3], cond[2, 1, 4] = torch.inf, torch.nan
    table, step = table_of((1.0,), out=1.0, q=1.0), torch.tensor([1])
    marks = torch.zeros(3, 3, dtype=torch.float64)
    formulas.guided_step(x, cond, table, step, nonfinite=marks)
    assert marks.tolist() == [[0, 0, 0], [0, 1, 1], [0, 0, 0]]
    formulas.guided_step(x, x, table, step, nonfinite=marks)  # what was found stays
    assert marks.tolist() == [[0, 0, 0], [0, 1, 1], [0, 0, 0]]
    formulas.guided_step(x[:, :0], x[:, :0], table, step, nonfinite=marks)


def test_slots_without_weight_are_not_looked_at() -> None:
    x, cond = tensors(2)
    history = torch.full((3, *x.shape), torch.nan, dtype=torch.float64)
    table = table_of((2.0, 0.0, 0.0), out=1.0, q=1.0, a=0.5)
    found = formulas.guided_step(x, cond, table, torch.tensor(1), history=history)
    assert torch.allclose(found, 0.5 * x + 2 * cond)
    assert torch.equal(history[1], cond)


def test_reduce_is_the_gram_matrix_of_one_and_the_vectors() -> None:
    u, v, w = tensors(3)
    found = formulas.reduce(u.float(), v.float(), w.float())
    rows = [torch.ones_like(u).float(), u.float(), v.float(), w.float()]
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            wanted = (a.double() * b.double()).flatten(1).sum(1)
            assert torch.allclose(found[:, i, j], wanted, rtol=1e-14, atol=1e-14)
    assert found.dtype == torch.float64 and formulas.reduce(u).shape == (3, 2, 2)


def test_reduce_of_scalars_and_of_nothing() -> None:
    found = formulas.reduce(torch.tensor([2.0, 3.0]))
    assert found.tolist() == [[[1, 2], [2, 4]], [[1, 3], [3, 9]]]
    assert formulas.reduce(torch.empty(2, 0, 3)).tolist() == torch.zeros(2, 2, 2).tolist()
    assert formulas.reduce(torch.empty(0, 3)).shape == (0, 2, 2)


def test_probe_stacks_the_scaled_states() -> None:
    x, d = tensors(2)
    length = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    table = table_of((1.0,), c_in=0.4)
    found = formulas.probe(x, d, length, table, torch.tensor(1), copies=2)
    moved = x + length.reshape(3, 1, 1) * d
    assert torch.allclose(found, 0.4 * torch.cat([x, x, moved]), rtol=1e-14)
    half = formulas.probe(x, d, length, table, torch.tensor(1), copies=0, dtype=torch.float16)
    assert torch.equal(half, (0.4 * moved).half())


def test_lagged_product_on_dense_matrices() -> None:
    """K = s I: exact for every lag. Any K: exact along the lag."""

    def product(*given: torch.Tensor) -> torch.Tensor:
        return formulas.lagged_product(formulas.reduce(*given), *given)

    delta, lag = tensors(2)
    assert torch.allclose(product(delta, lag, 0.4 * lag), 0.4 * delta, rtol=1e-12)
    matrix = torch.randn(10, 10, dtype=torch.float64)
    along = 3.0 * lag
    k = (lag.flatten(1) @ matrix.T).reshape_as(lag)
    assert torch.allclose(product(along, lag, k), 3 * k, rtol=1e-12)
    assert torch.equal(product(delta, 0 * lag, 0 * lag), 0 * delta)


class Launches(TorchDispatchMode):
    """Counts the ops that compute or move something: on a GPU, what is launched."""

    VIEWS = ("unbind", "squeeze", "unsqueeze", "view", "select", "slice")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.count += op._schema.name.removeprefix("aten::") not in self.VIEWS
        return op(*args, **(kwargs or {}))


def test_what_the_fused_step_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures of docs/backends.md: launches of the plain step, its numbers on the device."""
    monkeypatch.setattr(
        formulas,
        "_row",
        lambda table, step: table.index_select(0, step.reshape(1)).squeeze(0).unbind(0),
    )
    monkeypatch.setattr(
        formulas, "_clipped", lambda denoised, limit, keep: denoised
    )  # a plain loop
    x, cond, ref, term, noise = tensors(5)
    everything = {
        "ref": ref,
        "term": term,
        "gain": torch.ones(3, dtype=torch.float64),
        "noise": noise,
        "history": torch.zeros(2, *x.shape, dtype=torch.float64),
    }
    for given, b, wanted in (({"ref": ref}, (1.0,), 15), (everything, (1.0, 0.5), 32)):
        table, step = table_of(b, w=1.0, c=1.0), torch.tensor(1)
        with Launches() as launches:
            formulas.guided_step(x, cond, table, step, **given)
        assert launches.count == wanted


def test_numbers_of_the_host_and_of_the_device_give_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a GPU the row stays on the device; that branch, taken here."""
    x, cond, ref, noise, *ring = tensors(7)
    table = table_of((0.2, 0.0, -0.4), w=1.5, skip=0.6, out=-1.1, p=0.3, q=-0.7, a=0.9, c=0.1)

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        history = torch.stack(ring)
        given = {"ref": ref, "noise": noise, "history": history, "channels": 1}
        return formulas.guided_step(x, cond, table, torch.tensor(1), **given), history

    host = run()
    monkeypatch.setattr(
        formulas,
        "_row",
        lambda table, step: table.index_select(0, step.reshape(1)).squeeze(0).unbind(0),
    )
    for a, b in zip(run(), host, strict=True):
        assert torch.equal(a, b)
