"""Normalisations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from forward_cases import Moves, Table, check_all, example, unvisited

from reg_engine.errors import EstimatorError
from reg_engine.forward import jvp


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


X, IMAGE = Moves((2, 3, 8)), Moves((2, 4, 3, 5))
TABLE: Table = {}
example(TABLE, "layer_norm", X, (8,), noise(8), noise(8), axis=(0, 1))
example(TABLE, "layer_norm", X, [3, 8], noise(3, 8), noise(3, 8), 0.1)
example(TABLE, "layer_norm", X, [8], eps=1e-3)
example(TABLE, "layer_norm", X, (8,), weight=noise(8))
example(TABLE, "rms_norm", X, (8,), noise(8), axis=(0, 1))
example(TABLE, "rms_norm", X, (3, 8), noise(3, 8), 0.1)
example(TABLE, "rms_norm", X, (8,), eps=1e-3)
example(TABLE, "group_norm", IMAGE, 2, noise(4), noise(4))
example(TABLE, "group_norm", Moves((2, 4)), 2, noise(4), noise(4), 0.1)
example(TABLE, "group_norm", X, 3, eps=1e-3)
example(TABLE, "instance_norm", IMAGE, homes=(F,))
example(TABLE, "instance_norm", X, weight=noise(3), bias=noise(3), eps=0.1, homes=(F,))
example(TABLE, "instance_norm", X, noise(3), noise(3) ** 2, use_input_stats=False, homes=(F,))


@pytest.mark.parametrize("name", TABLE)
def test_tangents_are_those_of_forward_ad(name: str) -> None:
    check_all(TABLE, name)


def test_every_rule_has_an_example() -> None:
    assert unvisited(TABLE, "norms") == set()


MIXED = {
    "layer_norm": lambda x: F.layer_norm(x.t(), (8,)),
    "layer_norm over all": lambda x: F.layer_norm(x, (8, 8)),
    "rms_norm": lambda x: F.rms_norm(x.t(), (8,)),
    "group_norm": lambda x: F.group_norm(x.t()[None], 2),
    "instance_norm": lambda x: F.instance_norm(x[:, :, None].movedim(0, 2)),
}


@pytest.mark.parametrize("name", MIXED)
def test_norms_over_the_batch_are_refused(name: str) -> None:
    op = name.partition(" ")[0]
    with pytest.raises(EstimatorError, match=f"{op} normalises over the batch"):
        jvp(MIXED[name], torch.randn(4, 8), torch.randn(4, 8))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_low_precision_the_tangent_is_as_good_as_the_value(dtype: torch.dtype) -> None:
    x, t = torch.randn(2, 4, 8, 8, dtype=torch.float64).unbind(0)
    for norm in (
        lambda x: F.layer_norm(x, (8,)),
        lambda x: F.rms_norm(x, (8,)),
        lambda x: F.group_norm(x, 2),
    ):
        wanted = torch.func.jvp(norm, (x,), (t,))[1]
        value, found = jvp(norm, x.to(dtype), t.to(dtype))
        assert torch.equal(value, norm(x.to(dtype)))
        assert (found - wanted).norm() < 0.01 * wanted.norm()
