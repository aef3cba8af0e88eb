"""What is linear in each of its arguments."""

from __future__ import annotations

import pytest
import torch
from forward_cases import Moves, Rows, Table, check_all, example, unvisited

from reg_engine.errors import EstimatorError
from reg_engine.forward import jvp


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


X, Y = Moves((2, 3, 4)), Moves((2, 3, 4))
POSITIVE = Moves((2, 3, 4), lambda z: z.abs() + 0.1)
TABLE: Table = {}

MUL = "mul multiply __mul__ __rmul__"
DIV = "div divide true_divide __truediv__ __div__"
for _names in (MUL, DIV):
    example(TABLE, _names, X, POSITIVE, axis=(0, 1, 2))
    example(TABLE, _names, X, Moves((2, 1, 4)), axis=(0, 2))
    example(TABLE, _names, Moves((2, 1, 4)), Moves((2, 3, 1)), twin=False)
    for _constant in (0.3, 2, noise(4), noise(3, 1), torch.tensor(0.3), Rows((2, 1, 4))):
        example(TABLE, _names, X, _constant)
    example(TABLE, _names, X, noise(5, 1, 3, 4), twin=False)
    example(TABLE, _names, Moves((2, 1, 4)), noise(3, 4), twin=False)
example(TABLE, "mul multiply div divide true_divide", noise(3, 4), POSITIVE, homes=(torch,))
example(TABLE, "mul div __mul__ __truediv__", Rows((2, 3, 4)), POSITIVE, homes=(torch.Tensor,))
example(TABLE, "mul div", noise(5, 1, 3, 4), POSITIVE, homes=(torch,))
example(TABLE, "__rtruediv__ __rdiv__", POSITIVE, 0.3)
example(TABLE, "__rtruediv__ __rdiv__", POSITIVE, noise(3, 4))
for _mode in ("floor", "trunc"):
    example(TABLE, "div divide", X, 0.3, rounding_mode=_mode)
    example(TABLE, "div divide", X, Y, rounding_mode=_mode)

POW = "pow __pow__ float_power"
for _exponent in (2, 3, 1, 0, 0.5, -1.5):
    example(TABLE, POW, Moves((2, 4, 8), lambda z: z.abs() + 0.1), _exponent, axis=(0, 1))
example(TABLE, POW, X, 3)
example(TABLE, POW, POSITIVE, noise(4), fallback=True)
example(TABLE, POW, POSITIVE, Y, fallback=True)
example(TABLE, "pow float_power", noise(3, 4) ** 2, X, fallback=True, homes=(torch,))
example(TABLE, "__rpow__", X, 2.0, fallback=True)

MATRIX = "matmul __matmul__"
WIDE = Moves((2, 5, 3, 4))
example(TABLE, f"{MATRIX} __rmatmul__", WIDE, Moves((2, 5, 4, 3)), axis=(0, 1), twin=False)
example(TABLE, f"{MATRIX} bmm", Moves((2, 3, 4)), Moves((2, 4, 5)), twin=False)
example(TABLE, f"{MATRIX} bmm", Moves((2, 3, 4)), Rows((2, 4, 5)), twin=False)
example(TABLE, f"{MATRIX} bmm", Rows((2, 3, 4)), Moves((2, 4, 5)))
example(TABLE, MATRIX, WIDE, Moves((2, 1, 4, 3)), twin=False)
example(TABLE, MATRIX, X, noise(4, 5), axis=(0, 1), twin=False)
example(TABLE, MATRIX, X, noise(5, 1, 4, 3), twin=False)
example(TABLE, MATRIX, noise(5, 3), X)
example(TABLE, MATRIX, noise(5, 3), X, axis=2)
example(TABLE, "__rmatmul__", X, noise(5, 3))
example(TABLE, MATRIX, X, noise(4), fallback=True, twin=False)
example(TABLE, f"{MATRIX} mm", Moves((2, 4)), noise(4, 5), twin=False)
example(TABLE, f"{MATRIX} mm", noise(5, 4), Moves((4, 2)), axis=1)
example(TABLE, "baddbmm", noise(1, 3, 5), X, Moves((2, 4, 5)), homes=(torch,))
example(TABLE, "baddbmm", Rows((2, 3, 5)), X, Moves((2, 4, 5)), beta=0.5, alpha=0.3)
example(TABLE, "baddbmm", noise(1, 3, 5), X, Rows((2, 4, 5)), beta=0, alpha=0.3)
example(TABLE, "baddbmm", Moves((2, 3, 5)), X, Moves((2, 4, 5)), alpha=0.3, fallback=True)
example(TABLE, "baddbmm", Moves((2, 3, 5)), Rows((2, 3, 4)), Rows((2, 4, 5)), fallback=True)

HEADS = Moves((2, 4, 3, 5))
for _equation, _operands in {
    "bnhd,bmhd->bhnm": (HEADS, Moves((2, 6, 3, 5))),
    "bhnm,bmhd->bnhd": (Moves((2, 3, 4, 6)), Moves((2, 6, 3, 5))),
    "b n h d , b m h d -> b h n m": (HEADS, Rows((2, 6, 3, 5))),
    "bnd,de->bne": (Moves((2, 4, 3)), noise(3, 5)),
    "nd,bnd->bn": (noise(4, 3), Moves((2, 4, 3))),
    "...d,de->...e": (Moves((2, 4, 3)), noise(3, 5)),
    "...nd,...md->...nm": (Moves((2, 4, 3)), Moves((2, 5, 3))),
    "b...,b...->b": (Moves((2, 4, 3)), Moves((2, 4, 3))),
    "bc,bc,bc->bc": (Moves((2, 4)), Moves((2, 4)), Moves((2, 4))),
    "bc,bcn,bn->bn": (Moves((2, 4)), Rows((2, 4, 3)), Moves((2, 3))),
    "bij->bji": (X,),
    "bii->bi": (Moves((2, 3, 3)),),
    "bij->b": (X,),
}.items():
    example(TABLE, "einsum", _equation, *_operands)
example(TABLE, "einsum", "nbd,md->mnb", Moves((4, 2, 3)), noise(5, 3), axis=1)
example(TABLE, "einsum", "bn,bn->bn", [Moves((2, 3)), Moves((2, 3))])
example(TABLE, "einsum", X, [0, 1, 2], noise(4), [2], [0, 1])


@pytest.mark.parametrize("name", TABLE)
def test_tangents_are_those_of_forward_ad(name: str) -> None:
    check_all(TABLE, name)


def test_every_rule_has_an_example() -> None:
    assert unvisited(TABLE, "products") == set()


@pytest.mark.parametrize("exponent", [2, 2.5])
def test_a_power_has_the_dtype_of_the_op(exponent: float) -> None:
    x = torch.rand(2, 4) + 0.5
    for power in (torch.pow, torch.float_power):
        value, tangent = jvp(lambda x, power=power: power(x, exponent), x, torch.ones_like(x))
        assert torch.equal(value, power(x, exponent))
        assert value.dtype == tangent.dtype == power(x, exponent).dtype


MIXED = {
    "the batch with itself": lambda x: x @ x.t(),
    "sum over the batch": lambda x: x.t() @ x,
    "sum beside a constant": lambda x: x.t() @ torch.ones(4, 3),
    "constant and rows": lambda x: torch.ones(3, 4) @ x,
    "paired with another dimension": lambda x: x[:, :, None] * x.t()[:, :, None],
    "product of both": lambda x: x * x.t(),
    "quotient of both": lambda x: x / x.t(),
    "einsum sums": lambda x: torch.einsum("bc,bd->cd", x, x),
    "einsum pairs": lambda x: torch.einsum("bc,ac->ba", x, x),
    "einsum drops": lambda x: torch.einsum("bc->c", x),
}


@pytest.mark.parametrize("name", MIXED)
def test_products_that_mix_rows_are_refused(name: str) -> None:
    with pytest.raises(
        EstimatorError, match=r"network: (matmul|__matmul__|mul|div|__\w+__|einsum)"
    ):
        jvp(MIXED[name], torch.randn(4, 4), torch.randn(4, 4))
