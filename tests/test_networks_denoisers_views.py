"""What a denoiser keeps and shows: views on other schedules, black and white, one line of text."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from nets import SHAPE, tiny

from reg_engine import Denoiser, InputError, sample, schedules
from reg_engine.networks.denoisers import VIEWS


def test_views_are_few_and_the_one_in_use_stays() -> None:
    own = tiny("epsilon", schedules.VPLinear())
    used = own.on(schedules.EDM())
    for k in range(3 * VIEWS):
        new = schedules.EDM(sigma_max=100.0 + k)
        assert own.on(new) is own.on(new)
        assert own.on(schedules.EDM()) is used
        assert len(own._views) <= VIEWS
    assert own.on(used.schedule).schedule == used.schedule


def test_a_view_has_everything_but_the_schedule() -> None:
    own = tiny("epsilon", schedules.VPLinear())
    view = own.on(schedules.EDM())
    differ = {key for key in vars(own) if vars(view)[key] is not vars(own)[key]}
    assert differ == {"schedule", "_views"}


@pytest.mark.parametrize(("given", "wanted"), [((0, 1), (0.0, 1.0)), ([-2, 3.5], (-2.0, 3.5))])
def test_black_and_white_are_the_models(given: Any, wanted: tuple[float, float]) -> None:
    model = tiny()
    low, high = wanted
    ends = torch.tensor([low, high, low - 1, high + 1, (low + high) / 2]).reshape(5, 1, 1, 1)
    model = Denoiser(
        lambda x, t, c: 0 * x + ends, "sample", model.schedule, SHAPE, value_range=given
    )
    assert model.value_range == wanted == model.on(schedules.VPLinear()).value_range
    out = sample(model, [0] * 5, scale=1.0, steps=2, progress=False)
    assert out.images[:, 0, 0, 0].tolist() == [0, 255, 0, 255, 128]
    for bad in ((1, 0), (0, 0), (0,), 3, "ab", (0, math.nan), (0, math.inf), None):
        with pytest.raises(InputError, match="^value_range: "):
            Denoiser(model.net, "sample", model.schedule, SHAPE, value_range=bad)


def test_a_denoiser_is_shown_on_one_line() -> None:
    assert repr(tiny()) == "Denoiser(TinyNet, 'edm', EDM, (1, 4, 4), null_cond=3)"
    view = tiny("flow", schedules.Flow(), null_cond=None).on(schedules.EDM())
    assert repr(view) == "Denoiser(TinyNet, 'flow', EDM, (1, 4, 4))"
    other = Denoiser(len, "sample", schedules.EDM(), (2,), null_cond={"a": torch.zeros(99)})
    assert repr(other) == "Denoiser(len, 'sample', EDM, (2,), null_cond=dict)"
