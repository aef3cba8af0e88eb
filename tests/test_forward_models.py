"""Whole networks: products beside forward AD in float64, predictions, launches, low precision."""

from __future__ import annotations

import copy
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from forward_ad import jvp as oracle
from forward_models import NETWORKS, Case, filled
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.append(str(Path(__file__).resolve().parent.parent))  # last, as in test_bench.py

from reg_engine.forward import passed, rows_of, stack  # noqa: E402

MATRIX = {"mm", "addmm", "bmm", "baddbmm", "linear", "matmul"}
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


class Launches(TorchDispatchMode):
    """How often each weight is read by a product or a convolution."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.weights = {p.untyped_storage().data_ptr(): n for n, p in net.named_parameters()}
        self.read: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in MATRIX | {"convolution"}:
            given = [a for a in args if isinstance(a, Tensor) and a.dim() > 1]
            self.read.update(
                name
                for name in (self.weights.get(a.untyped_storage().data_ptr()) for a in given)
                if name
            )
        return func(*args, **(kwargs or {}))


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("name", ["mnist", "dit", "unet2d", "sdxl", "sd3", "flux", "encoder"])
def test_each_layer_is_launched_once(name: str) -> None:
    case = made(name)
    with torch.no_grad(), Launches(case.net) as plain:
        case.call(case.net, torch.cat([case.x] * 3), ALL)
    with Launches(case.net) as stacked:
        passing(case, torch.randn_like(case.x))
    layers = nn.Linear | nn.Conv2d
    own = {n for n, m in case.net.named_modules() if isinstance(m, layers)}
    read = {weight.rpartition(".")[0] for weight in stacked.read}
    assert len(own & read) > 5 or name == "encoder"
    if name == "encoder":  # PyTorch's fused layer is another op
        assert len(read) == 8 and set(stacked.read.values()) == {1}
    else:  # a DiT embeds the label twice
        assert stacked.read == plain.read
        assert set(stacked.read.values()) <= ({1, 2} if name == "dit" else {1})


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["dit", "sd", "edm2"])
def test_low_precision_where_a_difference_has_none(name: str, dtype: torch.dtype) -> None:
    """Of the same rounded weights; the difference over the best of several steps."""
    case = made(name)
    case = Case(case.net.to(dtype), case.x.to(dtype), case.call)
    t = torch.randn_like(case.x)
    wanted = exact(case, t)

    def error(product: Tensor) -> float:
        return float((product - wanted).norm() / wanted.norm())

    def difference(h: float) -> Tensor:
        with torch.no_grad():
            sides = [case.call(case.net, case.x + s * t, CONDITIONED).double() for s in (h, -h)]
        return (sides[0] - sides[1]) / (2 * h)

    found = error(passing(case, t)[1].double())
    assert found <= 0.03
    assert min(error(difference(h)) for h in (0.03, 0.1, 0.2, 0.4)) > 2 * found
