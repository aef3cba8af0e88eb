"""Guidance composes: every prediction is one method, estimators of one product agree."""

from __future__ import annotations

import pytest
import torch
from nets import tiny
from torch import Tensor

import reg_engine
from reg_engine import Guidance, InputError, oracles, schedules
from reg_engine.guidance.adjustments import Rescale
from reg_engine.guidance.directions import Delta
from reg_engine.rectifiers import RECTIFIERS, Diagonal

MIXTURE = oracles.two_class_2d()
LABELS = torch.tensor([0, 1, 0, 1, 1, 0])


def run(model: reg_engine.Denoiser, guidance: Guidance, solver: str, steps: int = 9) -> Tensor:
    return reg_engine.sample(
        model,
        LABELS,
        guidance=guidance,
        solver=solver,
        steps=steps,
        seeds=range(6),
        dtype=torch.float64,
        progress=False,
    ).samples


@pytest.mark.parametrize("rectify", [None, *RECTIFIERS])
@pytest.mark.parametrize(
    ("schedule", "solver"),
    [
        (schedules.VPLinear(), "ddim"),
        (schedules.EDM(sigma_min=0.01, sigma_max=20.0), "heun"),
        (schedules.Flow(shift=2.0), "flow_heun"),
        (schedules.Cosine(), "dpmpp_2m"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_every_prediction_type_gives_the_same_guided_sample(
    rectify: str | None, schedule: schedules.Schedule, solver: str
) -> None:
    predictions = ["epsilon", "sample", "v_prediction", "flow", "edm"]
    if isinstance(schedule, schedules.Flow):
        predictions = ["sample", "v_prediction", "flow"]  # at t = 1 alpha = 0: no epsilon there
    runs = [
        run(
            MIXTURE.denoiser(prediction=p, schedule=schedule),
            Guidance(3.0, rectify=rectify),
            solver,
        )
        for p in predictions
    ]
    differences = ("fd", "fd_batched", "diagonal_batched", "lazy", "alternate", "lazy_blend")
    tolerance = 1e-6 if rectify in differences else 1e-10
    for prediction, other in zip(predictions[1:], runs[1:], strict=True):
        assert (other - runs[0]).abs().max() <= tolerance * runs[0].abs().max(), prediction


def test_estimators_of_the_same_product_agree_on_an_exact_model() -> None:
    """K is symmetric for an exact denoiser, so vjp, jvp and fd are one method."""
    model = MIXTURE.denoiser(schedule=schedules.EDM(sigma_min=0.01, sigma_max=20.0))
    from reg_engine.rectifiers import FD, JVP, VJP

    runs = {
        type(r).__name__: run(model, Guidance(3.0, rectify=r), "heun")
        for r in (VJP(), JVP("delta"), FD())
    }
    assert torch.allclose(runs["JVP"], runs["VJP"], rtol=1e-9, atol=1e-9)
    assert torch.allclose(runs["FD"], runs["VJP"], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(
        run(model, Guidance(3.0, rectify=Diagonal()), "heun"), runs["VJP"], atol=1e-3
    )


def test_a_number_is_a_constant_scale_and_an_adjustment_a_tuple() -> None:
    guidance = Guidance(3.0, rectify=None, adjust=Rescale())
    assert guidance.weight == reg_engine.Constant(3.0) and guidance.adjust == (Rescale(),)
    assert isinstance(guidance.direction, Delta)
    a = reg_engine.sample(tiny(), [0, 1], scale=3.0, rectify="vjp", steps=3, progress=False)
    b = reg_engine.sample(
        tiny(), [0, 1], guidance=Guidance(3.0, rectify="vjp"), steps=3, progress=False
    )
    assert torch.equal(a.samples, b.samples)


@pytest.mark.parametrize("wrong", [None, torch.zeros(6, 3)], ids=["nothing", "another shape"])
@pytest.mark.parametrize("part", ["direction", "adjust", "rectify"])
def test_what_a_part_returns_must_be_states(part: str, wrong: Tensor | None) -> None:
    def states(*given: object) -> object:
        return (wrong, wrong, wrong) if part == "rectify" else wrong

    guidance = Guidance(**{"weight": 3.0, "rectify": None, part: states})  # type: ignore[arg-type]
    got = "NoneType" if wrong is None else r"\(6, 3\)"
    with pytest.raises(InputError, match=rf"^{part}: returned {got} for states \(6, 2\)"):
        run(MIXTURE.denoiser(), guidance, "euler", 2)
