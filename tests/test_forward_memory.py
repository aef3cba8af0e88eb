"""Forward mode at real size: no more arithmetic and memory than its rows ask for."""

from __future__ import annotations

import pytest

pytest.importorskip("diffusers")

from family_memory import MODELS, measured


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if "DiT" in name else [pytest.mark.slow]) for name in MODELS],
)
def test_a_step_at_real_size(name: str) -> None:
    found = measured(MODELS[name])
    (flops, peak), (flops_j, peak_j), (flops_a, peak_a) = found.values()
    assert 1.5 < flops_j / flops <= 1.6 and flops_a == pytest.approx(flops_j, rel=1e-6)
    assert peak_j <= 1.505 * peak, "three rows where CFG has two, and nothing beside them"
    assert peak_a <= 1.05 * peak
