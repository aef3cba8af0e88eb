"""A postprocess: what it is given, and what it may return."""

from __future__ import annotations

import pytest
import torch
from nets import tiny

import reg_engine
from reg_engine import Engine, InputError, NumericalError

QUIET = {"progress": False}
LABELS = torch.tensor([0, 1, 2, 0, 1])


def test_postprocess_gets_each_batch_with_its_conditioning() -> None:
    seen: list[tuple[int, list[int]]] = []

    def double(samples: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        seen.append((len(samples), cond.tolist()))
        assert not samples.is_inference(), "a function may want gradients"
        return 2 * samples

    choices = {"scale": 2.0, "rectify": None, "steps": 3, **QUIET}
    plain = reg_engine.sample(tiny(), LABELS, **choices)
    whole = reg_engine.sample(tiny(), LABELS, postprocess=double, **choices)
    assert torch.equal(whole.samples, 2 * plain.samples)
    parts = reg_engine.sample(tiny(), LABELS, postprocess=double, batch_size=2, **choices)
    assert torch.allclose(parts.samples, whole.samples, rtol=1e-4, atol=1e-4)
    assert seen == [(5, LABELS.tolist()), (2, [0, 1]), (2, [2, 0]), (1, [1])]
    assert whole.stats.nfe == plain.stats.nfe and whole.stats.postprocess_nfe == 0
    assert whole.stats.postprocess_seconds > 0 and plain.stats.postprocess_seconds == 0


def test_postprocess_that_cannot_be_used_is_refused() -> None:
    for wrong in (3, "flow", torch.nn.Identity):
        with pytest.raises(InputError, match="postprocess: a .* is not callable"):
            Engine(tiny(), postprocess=wrong)
    answers = {
        r"returned \(5, 16\) for samples \(5, 1, 4, 4\)": lambda x, cond: x.flatten(1),
        "returned NoneType": lambda x, cond: None,
    }
    for message, function in answers.items():
        with pytest.raises(InputError, match=message):
            reg_engine.sample(tiny(), LABELS, postprocess=function, steps=2, **QUIET)
    with pytest.raises(NumericalError, match=r"NaN or Inf in samples \[0, 1, 2, 3, 4\]"):
        reg_engine.sample(tiny(), LABELS, postprocess=lambda x, cond: x / 0, steps=2, **QUIET)
