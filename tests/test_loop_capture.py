"""What a captured step may look at: fixed places for random numbers, nothing of the host."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from nets import tiny

from reg_engine import CaptureError, Engine
from reg_engine.loop.capture import Capture, Tape, _OnDevice
from reg_engine.noise import SampleNoise


def test_a_tape_hands_out_the_same_places_in_the_same_order() -> None:
    tape, like = Tape(), torch.zeros(2, 3)
    places = [tape.signs(like), tape.normal(like)]
    tape.rewind()
    again = [tape.signs(like), tape.normal(like)]
    assert all(a is b for a, b in zip(places, again, strict=True))
    tape.fill(SampleNoise([1, 2]))
    source = SampleNoise([1, 2])
    assert torch.equal(places[0], source.signs(like)) and torch.equal(
        places[1], source.normal(like)
    )


@pytest.mark.parametrize(
    "look",
    [
        lambda away: away.t,
        lambda away: away >= 2,
        lambda away: away == 0,
        lambda away: {}[away],
        lambda away: [1, 2][away],
        lambda away: float(away),
        lambda away: bool(away),
    ],
)
def test_a_row_on_the_device_refuses_every_look(look: Callable[[object], object]) -> None:
    with pytest.raises(CaptureError, match="row"):
        look(_OnDevice())


def test_numbers_follow_the_counter() -> None:
    engine = Engine(tiny(), scale=2.0, rectify=None, steps=4, progress=False)
    capture = Capture(engine, (torch.tensor([0, 1]), None), 2, lambda work, restore: work)
    for index, row in enumerate(engine.table.rows):
        assert capture.number("sigma") == torch.tensor(row.sigma)
        place = engine.denoiser.at(row.t)
        found = capture.place(engine.denoiser)
        assert torch.stack(list(found)).tolist() == torch.tensor(list(place)).tolist()
        assert int(capture.step) == index
        capture.step.add_(1)
