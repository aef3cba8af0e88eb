"""A point asks the networks in as few batches as it can, and counts every row."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from nets import CLASSES, SHAPE, flow_point, tiny
from torch import Tensor

from reg_engine import Engine, ops
from reg_engine.guidance.references import BadModel, Unconditional
from reg_engine.networks import point
from reg_engine.networks.counter import Counter
from reg_engine.networks.point import Point


def test_stack_is_one_batch_for_the_same_network() -> None:
    p = flow_point(batch=2)
    moved = p.x + 0.1
    ref, cond, again = p.stack(p.x, moved)
    assert p.denoiser.net.calls == [[CLASSES, CLASSES, 0, 0, 0, 0]]
    assert p.counter == Counter(forward=6)
    null = torch.full((2,), CLASSES)
    for got, (x, labels) in zip(
        (ref, cond, again), ((p.x, null), (p.x, p.cond), (moved, p.cond)), strict=True
    ):
        assert torch.allclose(got, p.denoiser(x, p.row.t, labels), rtol=1e-5, atol=1e-6)


def test_stack_asks_another_network_apart() -> None:
    p = flow_point(batch=2)
    bad = tiny("flow", p.denoiser.schedule)
    p = replace(p, reference=BadModel(bad), counter=Counter())
    ref, cond = p.stack(p.x)
    assert p.denoiser.net.calls == [[0, 0]] and bad.net.calls == [[0, 0]]
    assert p.counter.forward == 4
    assert torch.equal(ref, cond)


def test_a_probe_in_one_pass_is_the_stack_and_counts_every_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the device table at hand the network's input is written at once: same values, 3 rows."""
    model = tiny()
    engine = Engine(model, scale=2.0, rectify="fd", solver="euler", steps=4, progress=False)
    x = torch.randn(2, *SHAPE)
    p = Point(
        x, engine.table.rows[1], 1, model, Unconditional(), torch.tensor([0, 2]), {},
        table=engine.coefficients.estimates, step=torch.tensor(1), backend="reference",
    )  # fmt: skip
    written: list[int] = []

    def probe(x: Tensor, *args: object, **options: object) -> Tensor:
        written.append(len(x))
        return ops.probe(x, *args, **options)

    monkeypatch.setattr(point, "ops", SimpleNamespace(probe=probe))
    apart = replace(p, table=None, counter=Counter())
    unplaced = replace(p, step=None, counter=Counter())
    direction, length = torch.randn_like(x), torch.tensor([0.1, 0.3])
    fused = p.stack_probe(direction, length)
    assert written == [2]
    plain, again = (q.stack_probe(direction, length) for q in (apart, unplaced))
    assert written == [2] and all(map(torch.equal, plain, again))
    assert p.counter == apart.counter == unplaced.counter == Counter(forward=6)
    moved = x + length[:, None, None, None] * direction
    null = torch.full((2,), CLASSES)
    for one, two, (state, labels) in zip(
        fused, plain, ((x, null), (x, p.cond), (moved, p.cond)), strict=True
    ):
        exact = model(state, p.row.t, labels)
        assert torch.allclose(one, exact, rtol=1e-5, atol=1e-5)
        assert torch.allclose(two, exact, rtol=1e-5, atol=1e-5)
