"""Every estimator on every family, against the method stated in plain autograd, in float64."""

from __future__ import annotations

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from family_errors import ALL, BOUNDS, errors


@pytest.mark.parametrize("name", ALL)
def test_estimators_are_the_method(name: str) -> None:
    found = errors(name)
    assert {k: v for k, v in found.items() if not v < BOUNDS[k]} == {}, found
