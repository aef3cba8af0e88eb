"""What an error says: the op, and the module where it was met."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from reg_engine.errors import EstimatorError
from reg_engine.forward import jvp
from reg_engine.forward.refusals import name_of, refuse


class Centred(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = Centred()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attn(x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 4), Block()])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


X = torch.randn(3, 4)


def test_the_module_is_named_by_its_path() -> None:
    with pytest.raises(EstimatorError, match=r"mean in blocks\.1\.attn \(Centred\) works along"):
        jvp(Net(), X, X)


def test_the_path_begins_at_the_outermost_module() -> None:
    with pytest.raises(EstimatorError, match=r"mean in attn \(Centred\) works along"):
        jvp(Net().blocks[1], X, X)
    with pytest.raises(EstimatorError, match=r"mean in Centred works along"):
        jvp(Centred(), X, X)
    with pytest.raises(EstimatorError, match=r"network: mean works along"):
        jvp(lambda x: x.mean(0), X, X)


def test_other_estimators_are_proposed() -> None:
    with pytest.raises(EstimatorError, match="Use rectify='vjp', 'fd_batched' or 'fd'"):
        refuse(torch.sum, "is here")


def test_ops_go_by_the_names_of_programs() -> None:
    assert name_of(torch.sum) == name_of(Tensor.sum) == "sum"
    assert name_of(Tensor.shape.__get__) == "shape"
    assert name_of(Tensor.data.__set__) == "data"
    assert name_of(torch.ops.aten.sum.dim_IntList) == "sum.dim_IntList"
    assert name_of(nn.functional.gelu) == "gelu"


def test_a_fallback_is_named_with_its_module() -> None:
    class Sorted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sort(0).values

    net = nn.Sequential(nn.Identity(), Sorted())
    with pytest.raises(EstimatorError, match=r"sort in 1 \(Sorted\) has no rule, and works along"):
        jvp(net, X, X)
    with pytest.raises(EstimatorError, match=r"sort in 1 \(Sorted\) has no rule, and strict"):
        jvp(net, X, X, strict=True)
