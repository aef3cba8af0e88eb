"""Whole networks: products beside forward AD in float64, predictions, launches, low precision."""

from __future__ import annotations

import copy
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from forward_ad import jvp as oracle
from forward_models import NETWORKS, Case, filled
from torch import Tensor

sys.path.append(str(Path(__file__).resolve().parent.parent))  # last, as in test_bench.py

from reg_engine.forward import passed, rows_of, stack  # noqa: E402

CONDITIONED = torch.tensor([2, 3])
ALL = torch.tensor([0, 1, 2, 3, 2, 3])  # ref, cond, and what stands beside the tangents


def made(name: str) -> Case:
    torch.manual_seed(1)
    case = NETWORKS[name]()
    return Case(filled(case.net), case.x, case.call)


def passing(case: Case, t: Tensor, x: Tensor | None = None) -> tuple[Tensor, Tensor, Counter[str]]:
    """(predictions, product, fallbacks) of one pass [ref; cond; t]."""
    z = case.x if x is None else x
    rows = stack([z, z], [t])
    output, met = passed(lambda: case.call(case.net, rows, ALL))
    found = rows_of(output, rows)
    return found[:4], found[4:], met


def exact(case: Case, t: Tensor, x: Tensor | None = None) -> Tensor:
    """K t in float64, of the network's own weights."""
    z = (case.x if x is None else x).double()
    net = copy.deepcopy(case.net).double()
    return oracle(lambda v: case.call(net, v, CONDITIONED), z, t.double())[1]


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("name", NETWORKS)
def test_products_and_predictions(name: str) -> None:
    case = made(name)
    t = torch.randn_like(case.x)
    predictions, product, met = passing(case, t)
    assert met == {}
    with torch.no_grad():
        plain = case.call(case.net, torch.cat([case.x] * 3), ALL)[:4]
    if "encoder" in name:  # PyTorch's fused layer rounds otherwise
        torch.testing.assert_close(predictions, plain, rtol=1e-5, atol=1e-5)
    else:
        assert torch.equal(predictions, plain)
    wanted = exact(case, t)
    assert wanted.norm() > 1e-3 * t.norm()
    assert (product - wanted).norm() <= 1e-5 * wanted.norm()
