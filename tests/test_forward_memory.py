"""Forward mode at real size: no more arithmetic and memory than its rows ask for."""

from __future__ import annotations

import pytest

pytest.importorskip("diffusers")

from family_memory import EVERY, MODELS, PAPER_ROWS, measured, of_bench


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


@pytest.mark.slow
@pytest.mark.parametrize("row", PAPER_ROWS)
def test_the_papers_models_by_method(row: str) -> None:
    """A backward pass takes the operations of a third forward pass, and many times the bytes."""
    found = measured(lambda: of_bench(row), EVERY)
    flops, peak = found.pop("CFG")
    ratios = {name: (f / flops, b / peak) for name, (f, b) in found.items()}
    assert all(1.499 <= f <= 1.65 for f, _ in ratios.values())
    assert ratios["fd_batched"][0] == pytest.approx(1.5, abs=1e-3)
    assert min(ratios[name][1] for name in ("paper", "vjp")) > 3.5
    assert max(ratios[name][1] for name in ("fd_batched", "jvp")) <= 1.505
    assert ratios["jvp, apart"][1] <= 1.05
