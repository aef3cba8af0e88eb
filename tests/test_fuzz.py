"""Any combination of choices gives finite samples that depend on neither backend nor batch, or
one error that names an argument."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fuzz_cases import Call, calls
from fuzz_settings import given

from reg_engine import Engine, InputError, RegEngineError

COUNTS: Counter[str] = Counter()
ARGUMENTS = (
    "rectify", "memory_budget", "solver", "schedule", "prediction", "weight", "plan", "reference",
    "direction", "adjust", "steps", "convention", "backend", "times",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def counted() -> Iterator[None]:
    """How many combinations were tried, and how many refused why (REG_ENGINE_FUZZ_COUNTS=FILE)."""
    yield
    if path := os.environ.get("REG_ENGINE_FUZZ_COUNTS"):
        lines = (f"{count} {name}\n" for name, count in COUNTS.most_common())
        Path(path).write_text("".join(lines), encoding="utf-8")


def engine(call: Call, backend: str | None = None, batch_size: int | None = None) -> Engine:
    return Engine(
        call.model(), guidance=call.guidance(), schedule=call.schedule(), backend=backend,
        batch_size=batch_size, progress=False, **call.choices,
    )  # fmt: skip


def tolerance(engine: Engine, sharp: bool) -> float:
    """Rounding of the coarsest dtype on the way, through a few rows.

    A network's own prediction is the denoised divided by up to the highest noise level. Not sharp:
    a difference divides by its step too, a lagged product by a delta that may be nearly
    rounding. Weights are below 10, the networks' slopes about 1.
    """
    eps = max(torch.finfo(d).eps for d in (engine.dtype, engine.denoiser.dtype or engine.dtype))
    highest = max([1.0, *(row.noise_level for row in engine.table.rows if row.alpha)])
    assert torch.finfo(engine.dtype).eps * highest < 1, (
        "a noise level that rounding cannot tell from noise alone"
    )
    return 100 * eps * highest / (1.0 if sharp else eps**0.5)


@given(call=calls())
def test_any_combination_is_right_or_refused_by_name(call: Call) -> None:
    COUNTS["tried"] += 1
    try:
        first = engine(call)
        whole = first.sample(call.cond, call.seeds, call.noise).samples
    except InputError as error:
        assert error.argument and error.problem and error.remedy
        COUNTS[f"InputError {error.argument}"] += 1
        return
    except RegEngineError as error:
        assert any(name in str(error) for name in ARGUMENTS), error
        COUNTS[f"{type(error).__name__} {str(error)[:60]}"] += 1
        return
    assert whole.isfinite().all()
    COUNTS["right"] += 1
    size = whole.flatten(1).abs().amax(1).clamp_min(1.0)
    for other in (engine(call, backend="reference"), engine(call, batch_size=1)):
        away = other.sample(call.cond, call.seeds, call.noise).samples - whole
        away = away.flatten(1).abs().amax(1) / size
        assert (away <= tolerance(first, call.sharp)).all(), away.tolist()
