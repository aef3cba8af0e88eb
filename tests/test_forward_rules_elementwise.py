"""Functions of one element."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from forward_cases import Moves, Rows, Table, check_all, example, unvisited

X = Moves((16, 3, 16))
POSITIVE = Moves((16, 3, 16), lambda z: z.abs() + 0.1)
WIDE = Moves((16, 3, 16), lambda z: 6 * z)
BOUND = torch.tensor([[-0.3], [0.1], [0.4]], dtype=torch.float64)

TABLE: Table = {}
EVERYWHERE = (0, 1, 2)
SMOOTH = "exp exp2 expm1 sin cos atan arctan abs absolute erf sigmoid expit tanh square reciprocal"
example(TABLE, f"{SMOOTH} logsigmoid relu mish silu gelu", X, axis=EVERYWHERE)
example(TABLE, "log log2 log1p sqrt rsqrt", POSITIVE, axis=EVERYWHERE)
example(
    TABLE, "relu6 hardtanh hardswish hardsigmoid softplus leaky_relu elu", WIDE, axis=EVERYWHERE
)
example(TABLE, "relu silu relu6 mish hardswish hardsigmoid", X, inplace=True, homes=(F,))
example(TABLE, "relu silu", X, True, homes=(F,))
example(TABLE, "gelu", X, approximate="tanh")
example(TABLE, "hardtanh", X, -0.5, 0.25)
example(TABLE, "hardtanh", X, min_val=-0.5, max_val=0.25, homes=(F,))
example(TABLE, "softplus", WIDE, 0.5, 3.0)
example(TABLE, "softplus", WIDE, beta=2.0, threshold=3.0)
example(TABLE, "leaky_relu", X, 0.3)
example(TABLE, "leaky_relu", X, negative_slope=0.3)
example(TABLE, "elu", X, 0.3)
example(TABLE, "elu", X, alpha=0.3)
example(TABLE, "elu", X, 0.3, True, homes=(F,))
example(TABLE, "clamp clip", X, -0.5, 0.5, axis=EVERYWHERE)
example(TABLE, "clamp clip", X, min=0.1)
example(TABLE, "clamp clip", X, max=0.1)
example(TABLE, "clamp clip clamp_min clamp_max", X, BOUND)
example(TABLE, "clamp clip", X, None, Rows((16, 3, 1)))
example(TABLE, "clamp_min", X, min=0.2)
example(TABLE, "clamp_max", X, max=0.2)
example(TABLE, "clamp_min clamp_max", X, 0.2)
example(TABLE, "clamp clamp_min clamp_max", X, X, fallback=True)


@pytest.mark.parametrize("name", TABLE)
def test_tangents_are_those_of_forward_ad(name: str) -> None:
    check_all(TABLE, name)


def test_every_rule_has_an_example() -> None:
    assert unvisited(TABLE, "elementwise") == set()
