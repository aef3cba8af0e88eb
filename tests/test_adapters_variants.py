"""Changed networks: an estimator is right, or refused with what to take instead."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from family_variants import NEEDS, VARIANTS, errors, families_of

BOUNDS = {"vjp": 1e-4, "jvp": 1e-4, "fd": 0.03}
COARSE = {"bfloat16": 0.2, "float16": 0.06, "int8, quanto": 0.06}  # of what it computes in
REFUSED = {
    ("stored in float8", "sd", "vjp"): "cannot be differentiated backward: .*Float8",
    ("sliced attention", "sd", "jvp"): "takes rows out of the batch",
    ("int8, quanto", "sd", "jvp"): "implement the jvp function",
    ("int8, quanto", "sd3", "jvp"): "implement the jvp function",
}
CASES = [
    pytest.param(
        variant, name, marks=() if name == "sd3" and variant != "compiled" else pytest.mark.slow
    )
    for variant in VARIANTS
    for name in families_of(variant)
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("variant", "name"), CASES)
def test_right_or_refused(variant: str, name: str) -> None:
    if variant in NEEDS:
        pytest.importorskip(NEEDS[variant])
    for rectify, found in errors(name, variant).items():
        reason = REFUSED.get((variant, name, rectify))
        if reason is None:
            assert isinstance(found, float) and found < COARSE.get(variant, BOUNDS[rectify]), found
            continue
        assert isinstance(found, str) and re.search(reason, found)
        assert "Use rectify='fd_batched'" in found
