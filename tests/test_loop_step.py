"""A Step says what its row evaluated, what the solver took, and where the state went."""

from __future__ import annotations

import torch
from nets import CLASSES, TinyNet, tiny

from reg_engine import Engine, Guidance, Rescale

LABELS, SEEDS = torch.tensor([0, 1, 2]), [4, 5, 6]


def test_a_step_is_the_row_by_formula() -> None:
    """Euler on EDM, guidance and rescale written out."""
    guidance = Guidance(3.0, rectify=None, adjust=Rescale(1.0))
    model = tiny(net=TinyNet().double())
    choices = {"solver": "euler", "steps": 3, "dtype": torch.float64, "progress": False}
    one = Engine(model, guidance=guidance, **choices)
    null = torch.full_like(LABELS, CLASSES)
    for step in one.steps(LABELS, SEEDS):
        with torch.no_grad():
            cond, ref = (one.denoiser(step.x, step.t, y) for y in (LABELS, null))
        guided = cond + 2 * (cond - ref)
        torch.testing.assert_close(step.cond, cond, rtol=1e-12, atol=1e-12)
        assert (step.guided - guided).abs().max() > 1e-3, "the adjustment is in it"
        taken = step.x + (step.s - step.t) * (step.x - step.guided) / step.t
        torch.testing.assert_close(step.x_next, taken, rtol=1e-12, atol=1e-12)


def test_clipping_is_in_what_the_solver_took() -> None:
    options = {"solver": "ddim", "solver_options": {"clip": 0.1}, "steps": 3, "progress": False}
    for step in Engine(tiny(), scale=3.0, **options).steps(LABELS, SEEDS):
        assert step.guided.abs().max() <= 0.1 < step.cond.abs().max()


def test_a_step_is_one_readable_line() -> None:
    step = next(Engine(tiny(), steps=2, progress=False).steps([1], [0]))
    assert repr(step) == "Step(0, t=80 -> 0.002, (1, 1, 4, 4))"
