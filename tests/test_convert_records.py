"""Names, records, and the budget of a file."""

from __future__ import annotations

import pytest

from reg_engine.convert.records import MOST_OPCODES, MOST_TEXT, Budget, Name, Record


def test_a_name_is_a_text() -> None:
    assert str(Name("os", "system")) == "os.system"
    assert Name("a.b", "c") != Name("a", "b.c")  # and str() of both is one


def test_records_share_nothing_and_compare_as_themselves() -> None:
    one, other = Record(Name("a", "B")), Record(Name("a", "B"))
    one.items["x"] = 1
    assert other.items == {} and one != other and one == one


def test_a_budget_is_spent_by_all() -> None:
    budget = Budget()
    assert (budget.opcodes, budget.text) == (MOST_OPCODES, MOST_TEXT)
    budget.spend(MOST_OPCODES, 1 << 20)
    assert budget.text == MOST_TEXT - (1 << 20)
    with pytest.raises(ValueError, match="opcodes"):
        budget.spend(1)
    with pytest.raises(ValueError, match="a text of more than 1048576 bytes"):
        Budget().spend(text=(1 << 20) + 1)
    many = Budget(text=5)
    many.spend(text=5)
    with pytest.raises(ValueError, match="in all"):
        many.spend(text=1)
