"""Numbers are read alike everywhere: plain, of NumPy or 0-dim tensors; bools never."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from reg_engine import InputError
from reg_engine.values import as_budget, as_float, as_int, as_levels, as_tuple, shown

THREES = [3, np.int8(3), np.uint64(3), np.array(3), torch.tensor(3), torch.tensor(3).short()]
HALVES = [0.5, np.float32(0.5), np.float16(0.5), np.array(0.5), torch.tensor(0.5), Fraction(1, 2)]
NO_NUMBER = [
    *(None, True, np.True_, torch.tensor(True), "3", b"3", 1j, np.complex64(1), [3], object),
    *(
        torch.tensor([3]),
        np.array([3]),
        torch.empty((), device="meta"),
        math.nan,
        np.float32("nan"),
    ),
]


@pytest.mark.parametrize("value", THREES, ids=repr)
def test_an_integer_of_any_make_is_an_int(value: Any) -> None:
    assert as_int("n", value) == 3 and type(as_int("n", value)) is int
    assert as_float("x", value) == 3.0 and type(as_float("x", value)) is float


@pytest.mark.parametrize("value", HALVES, ids=repr)
def test_a_number_of_any_make_is_a_float(value: Any) -> None:
    assert as_float("x", value) == 0.5 and type(as_float("x", value)) is float
    with pytest.raises(InputError, match="^n: is .* Give an integer >= 1"):
        as_int("n", value)


@pytest.mark.parametrize("value", NO_NUMBER, ids=repr)
def test_what_is_no_number_is_refused(value: Any) -> None:
    for read in (as_int, as_float):
        with pytest.raises(InputError, match="^n: is "):
            read("n", value)


def test_ends() -> None:
    assert as_int("n", 0, 0) == 0 and as_int("n", 5, 5) == 5
    for value, least in ((0, 1), (4, 5), (-1, 0), (2**63, 0)):
        with pytest.raises(InputError, match=f">= {least}"):
            as_int("n", value, least)
    assert as_float("x", math.inf, "Give more", lambda v: v > 0) == math.inf
    for bad in (math.inf, -math.inf, 10**400):
        with pytest.raises(InputError, match="finite"):
            as_float("x", bad)
    with pytest.raises(InputError, match="Give less"):
        as_float("x", 2, "Give less", lambda v: v < 2)


def test_levels_and_budgets() -> None:
    assert as_levels(0, math.inf) == (0.0, math.inf)
    for lo, hi, name in ((-1, 1, "lo"), (None, 1, "lo"), (2, 2, "hi"), (2, None, "hi")):
        with pytest.raises(InputError, match=f"^{name}: "):
            as_levels(lo, hi)
    assert as_budget(None) is None and as_budget(8e9) == as_budget(8 * 10**9) == 8e9
    for bad in (0, -1, math.nan, math.inf, "8 GB", True):
        with pytest.raises(InputError, match="^memory_budget: "):
            as_budget(bad)


def test_members() -> None:
    assert as_tuple("a", [1, 2], "Give two") == (1, 2) and as_tuple("a", "ab", "Give") == ("ab",)
    with pytest.raises(InputError, match="^a: is 3. Give two"):
        as_tuple("a", 3, "Give two")


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError


def test_a_value_is_shown_on_one_short_line() -> None:
    assert shown("a\nb") == r"'a\nb'" and shown(torch.zeros(2, 2)) == "tensor([[0., 0.], [0., 0.]])"
    assert len(shown("a" * 100)) == 60 and shown(Unspeakable()) == "a Unspeakable"
    assert shown(10**5000) == "a int"  # Python refuses to write it
