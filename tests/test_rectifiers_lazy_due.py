"""Which samples are asked: against the inequality's two sides, by hand."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import torch
from nets import flow_point
from rectifier_cases import Net
from torch import Tensor

from reg_engine import Denoiser, Guide, schedules
from reg_engine.ops.coefficients import COLUMNS
from reg_engine.rectifiers import Alternate, Lazy
from reg_engine.rectifiers.law import Known, carried, quotient_of


def due(rectifier: Lazy, w: float, **values: Any) -> tuple[list[int], list[int]]:
    """What is probed and asked at noise level 1, of four samples."""
    p, ones = flow_point(), torch.ones(4)
    p = replace(p, row=replace(p.row, alpha=1.0, sigma=1.0))
    table = torch.zeros(1, len(COLUMNS))
    table[0, COLUMNS.index("w")] = w
    p = replace(p, table=table, step=torch.zeros((), dtype=torch.int64))
    plain = {field.name: ones for field in fields(Known)} | {"rate": 0 * ones}
    size, age = values.pop("size", ones), values.pop("age", 0 * ones)
    leads = values.pop("leads", torch.ones(4, dtype=torch.bool))
    found = rectifier._due(p, Known(**{**plain, **values}), size, age, leads)
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
    above = torch.tensor([0.5, 1.0, 1.4, -0.1])  # K > 1 is no Gaussian's: the law says nothing
    assert due(lazy, 1.0, quotient=above, other=above, probed=torch.ones(4))[0] == [1, 2, 3]
    leads = torch.tensor([True, True, False, True])
    assert due(lazy, 1.0, quotient=above, other=above, leads=leads)[0] == [1, 3]
    push = torch.tensor([1.0, 1.0, 1.0, 1.5])  # half of what the largest |w delta| was
    assert due(lazy, 1.0, quotient=half, other=half, push=2 * push, **levels)[0] == []
    assert due(lazy, -2.0, quotient=half, other=half, push=2 * push, **levels)[0] == [2]


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
    # .5 at level 1 was .2 at level 2: a loss of 2 seen there is 2 * .5 / .8 here
    half, level = torch.full((4,), 0.5), torch.ones(4)
    then = {"quotient": half, "other": half, "probed": level, "asked": 2 * level}
    losses = {"rate": 2 * level, "size": 0 * level, "age": 0.4 * level}  # of 1/2 2 5/4 .4 = .25
    assert due(Lazy(reference=0.24), 1.0, **then, **losses)[1] == [0, 1, 2, 3]
    assert due(Lazy(reference=0.26), 1.0, **then, **losses)[1] == []
    risen = {**values, "age": torch.tensor([0.0, -1e-3, 0.0, -1e-6])}  # a level that rose
    assert due(Lazy(reference=0.9), 1.0, **risen)[1] == [1]


def test_the_rate_is_what_a_carried_delta_was_seen_to_lose() -> None:
    """ref is asked at two levels, and the second difference is compared with the first's."""
    net = Denoiser(
        Net().double().requires_grad_(False),
        "edm",
        schedules.EDM(sigma_min=0.01, sigma_max=20.0),
        (2, 3),
        null_cond=3,
        num_classes=3,
    )
    guide = Guide(
        net, torch.tensor([0, 1]), scale=3.0, rectify=Alternate(reference=1e-9), check=False
    )
    x = torch.randn(2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    raws = []
    for level in (2.0, 1.0):
        guide(x, level)
        raws.append(net(x, level, torch.tensor([0, 1])) - net(x, level, torch.tensor([3, 3])))
    known = Known.recall(guide._memory)
    assert known is not None
    torch.testing.assert_close(known.raw, raws[1])
    first = quotient_of(raws[0], exact_product(net, x, 2.0, raws[0]), None)
    now, then = (carried(first, 2 * torch.ones(2).double(), level) for level in (1.0, 2.0))
    stand_in = ((1 - now) / (1 - then))[:, None, None] * raws[0]
    lost = (raws[1] - stand_in).flatten(1).norm(dim=1)
    torch.testing.assert_close(known.rate, lost / math.log(2), rtol=1e-4, atol=1e-6)
    sizes = (each.flatten(1).norm(dim=1) for each in (raws[0], stand_in))
    torch.testing.assert_close(known.largest, torch.maximum(*sizes), rtol=1e-4, atol=1e-6)


def exact_product(net: Denoiser, x: Tensor, level: float, p: Tensor) -> Tensor:
    """K p by central differences."""
    sides = [net(x + h * p, level, torch.tensor([0, 1])) for h in (1e-5, -1e-5)]
    return (sides[0] - sides[1]) / 2e-5
