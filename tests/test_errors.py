"""Errors: one sentence of three parts, and the closest name."""

from __future__ import annotations

import pytest

from reg_engine import EstimatorError, InputError, NumericalError, RegEngineError
from reg_engine.errors import choice


def test_an_input_error_has_three_parts_and_is_a_value_error() -> None:
    error = InputError("steps", "is 0", "Give an integer >= 1")
    assert str(error) == "steps: is 0. Give an integer >= 1."
    assert (error.argument, error.problem, error.remedy) == (
        "steps",
        "is 0",
        "Give an integer >= 1",
    )
    assert isinstance(error, ValueError)
    for kind in (InputError, NumericalError, EstimatorError):
        assert issubclass(kind, RegEngineError)


def test_choice_proposes_the_closest_name_or_lists_all() -> None:
    assert choice("solver", "heun", ["euler", "heun"]) == "heun"
    with pytest.raises(InputError, match="Did you mean 'heun'. Known: euler, heun"):
        choice("solver", "huen", ["heun", "euler"])
    with pytest.raises(InputError, match=r"'xyz'. Known: euler, heun"):
        choice("solver", "xyz", ["heun", "euler"])
