"""How rules are entered, and what the tables hold."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from reg_engine.forward.rules.table import composite, getters, named, rule
from reg_engine.forward.tensor import COMPOSITES, RULES


def test_names_are_looked_up_wherever_a_function_goes_by_them() -> None:
    assert set(named("softmax")) == {
        torch.softmax,
        F.softmax,
        Tensor.softmax,
        torch.special.softmax,
    }
    assert list(named("no_such_op softmax", homes=(F,))) == [F.softmax]
    assert list(getters("mT")) == [Tensor.mT.__get__]


def test_a_rule_is_entered_for_each_of_them() -> None:
    before, made = dict(RULES), dict(COMPOSITES)

    class Home:
        @staticmethod
        def one() -> None: ...

        @staticmethod
        def two() -> None: ...

    try:

        @rule("one three", homes=(Home,))
        def function() -> None: ...

        @composite("two", homes=(Home,))
        def other() -> None: ...

        assert RULES[Home.one] is function and Home.two not in RULES
        assert COMPOSITES[Home.two] is other and Home.one not in COMPOSITES
    finally:
        for table, kept in ((RULES, before), (COMPOSITES, made)):
            table.clear()
            table.update(kept)


def test_every_way_to_call_a_common_op_has_a_rule() -> None:
    for name in ("add", "mul", "matmul", "sum", "reshape", "exp", "softmax", "chunk", "tanh"):
        assert set(named(name)) <= set(RULES)
    for op in (F.linear, F.layer_norm, torch.layer_norm, F.scaled_dot_product_attention, F.silu):
        assert op in RULES
    for op in (Tensor.add_, Tensor.__imul__, Tensor.exp_, Tensor.masked_fill_, Tensor.clamp_):
        assert op in RULES
    for op in (Tensor.unsqueeze_, Tensor.t_):  # which refuses
        assert RULES[op] is RULES[Tensor.transpose_]
    assert RULES[Tensor.unflatten.__get__] and RULES[None]
