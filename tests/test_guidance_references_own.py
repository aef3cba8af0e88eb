"""References of one's own: what they answer is checked."""

from __future__ import annotations

import pytest
import torch
from nets import tiny

import reg_engine
from reg_engine import Guidance, InputError


class Odd:
    """A reference of one's own that answers what it is made with."""

    modules, needs_cond = (), True

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def conditioning(self, *args: object) -> None:
        return None

    def null(self, point: object) -> None:
        return None

    def denoised(self, point: object, cond: torch.Tensor) -> object:
        return self.answer(cond) if callable(self.answer) else self.answer


@pytest.mark.parametrize("rectify", [None, "vjp", "jvp", "fd", "fd_batched"])
@pytest.mark.parametrize("answer", [None, lambda cond: 0.9 * cond[:1], 2.0])
def test_a_reference_answers_for_every_sample(rectify: str | None, answer: object) -> None:
    guidance = Guidance(3.0, Odd(answer), rectify=rectify)
    with pytest.raises(InputError, match="reference: returned .*Return tensors of that shape"):
        reg_engine.sample(tiny(), [0, 1, 2], guidance=guidance, steps=2, progress=False)


def test_half_a_reference_is_refused_by_what_it_lacks() -> None:
    class Half:
        def denoised(self, point: object, cond: object) -> object:
            return cond

    with pytest.raises(InputError, match="reference: Half has no 'modules'"):
        Guidance(3.0, Half())
