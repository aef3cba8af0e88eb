"""Questions, comparisons, new tensors, choices by a mask, and writing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from forward_cases import Moves, Rows, Table, check_all, example, unvisited
from torch import Tensor

from reg_engine.errors import EstimatorError
from reg_engine.forward import jvp
from reg_engine.forward.rules.constants import PROPERTIES


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


X, Y = Moves((2, 3, 4)), Moves((2, 3, 4))
UNIT = Moves((2, 3, 4), torch.sigmoid)
MASK = Rows((2, 3, 4), lambda z: z > 0)
TABLE: Table = {}

ASKED = (
    "dim ndimension numel nelement stride is_floating_point is_complex is_signed "
    "element_size get_device storage_offset is_inference is_conj is_neg is_pinned "
    "is_shared is_contiguous"
)
COMPARED = "eq ne lt le gt ge __eq__ __ne__ __lt__ __le__ __gt__ __ge__"
STEPS = "sign sgn floor ceil round trunc fix"
TESTED = "isnan isinf isfinite signbit"
LOGIC = "logical_and logical_or logical_xor"

for _axis in (0, 1):
    example(TABLE, COMPARED, X, 0.1, axis=_axis)
    example(TABLE, STEPS, X, axis=_axis)
    example(TABLE, TESTED, X, axis=_axis, twin=False)
example(TABLE, COMPARED, X, Y)
# in place, forward AD keeps the tangents that were there
example(TABLE, LOGIC, X, Y, still=True)
example(TABLE, "logical_not", X, still=True)
example(TABLE, "isclose", X, noise(3, 4))
example(TABLE, "heaviside", X, noise(4), still=True)
example(TABLE, "floor_divide __floordiv__", X, 0.3, still=True)
example(TABLE, "__rfloordiv__", X, 0.3, still=True)
example(TABLE, "long int short char bool", X, homes=(Tensor,))
example(TABLE, "byte", UNIT, homes=(Tensor,))
example(TABLE, "bucketize", X, noise(5).sort().values, homes=(torch,))
example(TABLE, "searchsorted", noise(5).sort().values, X, homes=(torch,))
example(TABLE, "round", X, decimals=1, homes=(torch, Tensor))
example(TABLE, "argmax argmin count_nonzero", X, 1, axis=(0, 2))
example(TABLE, "argmax argmin", X, 1, True)
example(TABLE, "argsort", X)
example(TABLE, "argsort", X, dim=1, descending=True)

example(TABLE, "zeros_like ones_like", X, axis=(0, 1), homes=(torch,))
example(TABLE, "full_like", X, 0.3, homes=(torch,))
example(TABLE, "zeros_like", X, dtype=torch.int64, homes=(torch,))
example(TABLE, "new_zeros new_ones", X, 3, 4)
example(TABLE, "new_full", X, (3, 4), 0.3)
example(TABLE, "new_tensor", X, [1.0, 2.0])

example(TABLE, "dropout dropout1d dropout2d dropout3d alpha_dropout", X, 0.5, False)
example(TABLE, "feature_dropout feature_alpha_dropout", X, 0.5, False)

example(TABLE, "where", noise(4) > 0, X, Y, homes=(torch,), axis=(0, 1))
example(TABLE, "where", MASK, X, 0.3, homes=(torch,))
example(TABLE, "where", MASK, noise(4), X, homes=(torch,))
example(TABLE, "where", MASK, Moves((2, 1, 4)), Rows((2, 3, 1)), homes=(torch,))
example(TABLE, "where", noise(5, 2, 3, 4)[:, :1] > 0, X, Y, homes=(torch,))
example(TABLE, "where", X, MASK, Y, homes=(Tensor,))
example(TABLE, "where", X, noise(4) > 0, -1.0, homes=(Tensor,))
example(TABLE, "masked_fill", X, MASK, 0.3)
example(TABLE, "masked_fill", X, noise(3, 1) > 0, -torch.inf, axis=(0, 2))
example(TABLE, "masked_fill", Moves((2, 1, 4)), MASK, torch.tensor(0.3), twin=False)

example(TABLE, "copy_", X, Y, homes=(Tensor,))
example(TABLE, "copy_", X, Moves((2, 1, 4)), homes=(Tensor,))
example(TABLE, "copy_", X, Rows((2, 1, 4)), homes=(Tensor,), axis=(0, 2))
example(TABLE, "fill_", X, 0.3)
example(TABLE, "zero_", X)
example(TABLE, "__setitem__", X, (slice(None), 0), 0.3, homes=(Tensor,))
example(TABLE, "__setitem__", X, (slice(None), slice(1, 3)), Moves((2, 2, 4)), homes=(Tensor,))
example(TABLE, "__setitem__", X, (..., 0), Rows((2, 3)), homes=(Tensor,))
example(TABLE, "__setitem__", X, slice(None), noise(4), homes=(Tensor,))
example(TABLE, "__setitem__", X, (0,), noise(3, 1), homes=(Tensor,), axis=2)
LAST = (slice(None), torch.tensor([0, 2]))
example(TABLE, "__setitem__", X, LAST, 0.3, homes=(Tensor,))
example(TABLE, "__setitem__", X, LAST, Moves((2, 2, 4)), homes=(Tensor,))
example(TABLE, "__setitem__", X, LAST, Rows((2, 1, 4)), homes=(Tensor,))
example(TABLE, "__setitem__", X, [0, 1], Moves((2, 3, 1)), homes=(Tensor,), axis=1)
example(TABLE, "__setitem__", X, MASK, 0.3, homes=(Tensor,), axis=(0, 1))
example(TABLE, "__setitem__", X, Rows((2, 3), lambda z: z > 0), torch.tensor(0.3), homes=(Tensor,))
example(TABLE, "__setitem__", X, Rows((2,), lambda z: z > 0), 0.3, homes=(Tensor,))
PICKED = torch.tensor([True, False])
example(TABLE, "__setitem__", X, PICKED, 0.3, homes=(Tensor,), axis=(1, 2))
example(TABLE, "__setitem__", X, PICKED, Moves((1, 3, 4)), homes=(Tensor,), axis=1)
example(TABLE, "__idiv__", UNIT, 0.3, homes=(Tensor,))


@pytest.mark.parametrize("name", TABLE)
def test_tangents_are_those_of_forward_ad(name: str) -> None:
    check_all(TABLE, name)


LIKE = torch.randn(3, 4, dtype=torch.float64)


def asked(question: Callable[[Tensor], Any]) -> None:
    """A question has the answer of the rows as they are."""

    def net(x: Tensor) -> Tensor:
        found.append(question(x))
        return x * 2

    found: list[Any] = []
    jvp(net, LIKE, LIKE)
    assert found == [question(torch.cat([LIKE, LIKE * 64]))]


@pytest.mark.parametrize("name", [name for name in PROPERTIES.split() if hasattr(Tensor, name)])
def test_properties_are_those_of_the_rows(name: str) -> None:
    if name != "_version":
        asked(lambda x: str(getattr(x, name, None)))


@pytest.mark.parametrize("name", [*ASKED.split(), "size", "__len__"])
def test_questions_have_the_answers_of_the_rows(name: str) -> None:
    asked(lambda x: getattr(x, name)())
    if name not in ("stride", "size", "__len__") and hasattr(torch, name):
        asked(lambda x: getattr(torch, name)(x))


def test_other_questions() -> None:
    asked(lambda x: (x.size(1), torch.result_type(x, 1), torch.can_cast(x.dtype, torch.int64)))
    asked(lambda x: (x.is_same_size(x), torch.equal(x, x), torch.allclose(x, x + 1)))
    x = LIKE.clone()
    assert "StackedDual" not in str(jvp(lambda x: x * len(f"{x} {x!r}") * 0 + x, x, x).value)
    assert isinstance(jvp(lambda x: x * (hash(x) * 0 + 1.0), x, x).value, Tensor)
    for name in ("requires_grad_", "share_memory_"):
        found = jvp(lambda x, name=name: getattr(x.exp(), name)(*[False][: name[0] == "r"]), x, x)
        torch.testing.assert_close(found.tangent, x * x.exp())


def test_noise_is_drawn_as_by_the_network_alone() -> None:
    calls: list[Callable[[Tensor], Tensor]] = [
        lambda x: x * torch.rand_like(x),
        lambda x: x * torch.randn_like(x),
        lambda x: x * torch.randint_like(x, 5),
        lambda x: x * torch.bernoulli(x.sigmoid()),
        lambda x: x * torch.multinomial(x.sigmoid(), 4),
        lambda x: F.dropout(x, 0.3),
        lambda x: F.dropout(x * 1, 0.3, inplace=True),
        lambda x: F.dropout1d(x[:, :, None], 0.3)[..., 0],
        lambda x: torch.feature_dropout(x[:, :, None, None], 0.3, True)[..., 0, 0],
    ]
    for call in calls:
        torch.manual_seed(3)
        found = jvp(call, LIKE, torch.ones_like(LIKE))
        after = torch.rand(())
        torch.manual_seed(3)
        assert torch.equal(found.value, call(LIKE))
        assert torch.equal(after, torch.rand(()))
        torch.testing.assert_close(found.tangent * LIKE, found.value)  # all are x times a factor


REFUSED = (
    "item tolist numpy __array__ __bool__ __float__ __int__ __index__ __complex__ data_ptr "
    "untyped_storage storage __dlpack__ backward normal_ uniform_ random_ bernoulli_ exponential_ "
    "log_normal_ cauchy_ geometric_ t_ squeeze_"
)


@pytest.mark.parametrize("name", REFUSED.split())
def test_reading_numbers_out_is_refused(name: str) -> None:
    args = (0.5,) if name == "geometric_" else ()
    with pytest.raises(EstimatorError, match=rf"network: {name}.* (reads numbers|changes the)"):
        jvp(lambda x: x + len(str(getattr(x * 1, name)(*args))), LIKE, LIKE)


OTHERS: dict[str, Callable[[Tensor], Any]] = {
    "__contains__": lambda x: x * (2.0 in x),
    "__reduce_ex__": lambda x: x.__reduce_ex__(2),
    "resize_": lambda x: (x * 1).resize_(2, 2),
    "poisson": lambda x: torch.poisson(x.abs()),
    "rrelu": lambda x: F.rrelu(x, training=True),
    "transpose_": lambda x: (x * 1).transpose_(0, 1),
    "unsqueeze_": lambda x: (x * 1).unsqueeze_(1),
    "swapaxes_": lambda x: (x * 1).swapaxes_(0, 1),
    "swapdims_": lambda x: (x * 1).swapdims_(0, 1),
    "new_tensor": lambda x: x.new_tensor(x),
    "where": lambda x: torch.where(x, x, x),
    "copy_": lambda x: torch.zeros(x.shape).copy_(x),
    "__setitem__": lambda x: torch.zeros(x.shape).__setitem__(slice(None), x),
    "add_": lambda x: torch.zeros(x.shape).add_(x),
    "mul_": lambda x: torch.zeros(x.shape).mul_(x),
    "add": lambda x: torch.add(x, x, out=torch.zeros(x.shape)),
    "argmax": lambda x: x * x.argmax(),
    "count_nonzero": lambda x: x * torch.count_nonzero(x, 0),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_would_lose_the_tangent_is_refused(name: str) -> None:
    with pytest.raises(EstimatorError, match=f"network: {name} "):
        jvp(OTHERS[name], LIKE, LIKE)


def test_writing_rows_of_the_batch_by_an_index_is_refused() -> None:
    for index in (torch.tensor([0]), ([0, 1], 2), slice(1, None)):
        with pytest.raises(EstimatorError, match="network: __setitem__ "):
            jvp(lambda x, index=index: (x * 1).__setitem__(index, 0.0), LIKE, LIKE)


def test_a_choice_has_the_dtype_of_the_op() -> None:
    x, wide = torch.randn(3, 4), torch.randn(4, dtype=torch.float64)
    value, tangent = jvp(lambda x: torch.where(x > 0, x, wide), x, torch.ones_like(x))
    assert value.dtype == tangent.dtype == torch.float64
    assert torch.equal(value, torch.where(x > 0, x, wide))


def test_new_tensors_can_be_written_into() -> None:
    def net(x: Tensor) -> Tensor:
        y, z = torch.empty_like(x), x.new_empty(x.shape)
        y[:, :2], y[:, 2:] = x[:, :2] * 2, 1.0
        z[:] = x.sin()
        return y + z

    found = jvp(net, LIKE, torch.ones_like(LIKE))
    assert torch.equal(found.value, net(LIKE))
    wanted = LIKE.cos() + torch.tensor([2.0, 2, 0, 0])
    torch.testing.assert_close(found.tangent, wanted)


def test_every_rule_has_an_example() -> None:
    own = f"{ASKED} {REFUSED} size __len__ __repr__ __format__ __hash__ is_same_size result_type"
    own += " can_cast equal allclose requires_grad_ share_memory_ rand_like randn_like bernoulli"
    own += " randint_like multinomial empty_like new_empty pin_memory"
    left = {name.rpartition(".")[2] for name in unvisited(TABLE, "constants")}
    assert left - {*own.split(), *OTHERS, "storage", "resize_as_", "set_", "__get__"} == set()
