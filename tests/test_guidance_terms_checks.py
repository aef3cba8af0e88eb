"""Terms that do not go together, and what each of them may see and answer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nets import TinyNet, tiny
from torch import Tensor

import reg_engine
from reg_engine import (
    BadModel,
    Guidance,
    InputError,
    Term,
)

LABELS = torch.tensor([0, 1, 0])
EXACT = {"dtype": torch.float64, "progress": False}
MEANS = torch.tensor([[1.0, 0.5], [-1.0, 0.2], [0.3, -1.2]], dtype=torch.float64)


def samples(guidance: Guidance, **choices: Any) -> Tensor:
    model = tiny(net=TinyNet().double())
    common = {"solver": "euler", "steps": 4, **EXACT}
    return reg_engine.sample(model, LABELS, guidance=guidance, **common, **choices).samples


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"terms": (Term(rectify="vjp"), Term(rectify="fd"))}, "terms.*'vjp', 'fd'.*Give one"),
        ({"terms": (3.0,)}, "terms.*holds 3.0.*Give a tuple of Terms"),
        ({"terms": (Guidance(2.0),)}, "terms.*Give a tuple of Terms"),
        ({"terms": (Term(),), "weight": 3.0}, "terms.*beside another.*among the terms"),
    ],
)
def test_terms_that_do_not_go_together_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Guidance(**given)


def test_terms_in_one_line() -> None:
    shown = repr(Guidance(terms=(Term(3.0), Term(2.0, rectify=None))))
    assert shown.startswith("Guidance(Term(Constant(scale=3.0), ") and "\n" not in shown


def test_a_terms_memory_can_be_gone_through() -> None:
    class Looks:
        def per_sample(self, point: Any, cond: Tensor, delta: Tensor) -> Tensor:
            point.memory["own"] = delta
            assert dict(point.memory).keys() >= {"own"} and len(point.memory) in (1, 2)
            point.memory["gone"] = delta
            del point.memory["gone"]
            assert "gone" not in point.memory and not any("term" in name for name in point.memory)
            return torch.ones(len(cond))

    samples(Guidance(terms=(Term(Looks(), rectify=None), Term(2.0, rectify=None))))


def test_networks_of_every_reference_are_frozen() -> None:
    others = tiny(), tiny()
    one = Guidance(terms=tuple(Term(2.0, BadModel(other)) for other in others)).as_one()
    assert one.reference.modules == (*others[0].modules, *others[1].modules)


def test_auto_gives_way_to_an_estimator_that_is_named() -> None:
    assert Guidance(terms=(Term(3.0, rectify="vjp"), Term(2.0))).as_one().rectify == "vjp"


@pytest.mark.parametrize("part", ["direction", "reference"])
def test_what_a_term_answers_is_checked(part: str) -> None:
    class One(BadModel):
        def denoised(self, point: Any, cond: Tensor) -> Tensor:
            return cond[:1]

    wrong = {"reference": One(tiny())}
    if part == "direction":
        wrong = {"direction": lambda point, cond, ref: cond[:1]}
    guidance = Guidance(terms=(Term(2.0, rectify=None), Term(2.0, rectify=None, **wrong)))
    with pytest.raises(InputError, match=f"{part}: returned"):
        samples(guidance)
