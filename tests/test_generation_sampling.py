"""What makes the pictures of a batch: an engine, or a pipeline; known by what they hang on."""

from __future__ import annotations

import pytest
import torch
from nets import CLASSES, TinyNet

from reg_engine import Denoiser, Engine, schedules
from reg_engine.generation import OfLabels, OfPrompts
from reg_engine.pictures.images import to_uint8

LABELS = [index % CLASSES for index in range(6)]


def engine(scale: float = 2.0) -> Engine:
    net = TinyNet(size=12)
    model = Denoiser(net, "edm", schedules.EDM(), (3, 2, 2), CLASSES, num_classes=CLASSES)
    return Engine(model, scale=scale, steps=3, progress=False)


def test_pictures_are_the_engines() -> None:
    sampler = OfLabels(engine())
    wanted = engine().sample(torch.tensor(LABELS), range(10, 16))
    assert torch.equal(sampler(LABELS, range(10, 16)), to_uint8(wanted.samples))
    assert sampler.stats.samples == 6 and sampler.stats.nfe == wanted.stats.nfe
    half = OfLabels(engine(), lambda samples: torch.zeros_like(samples))
    assert torch.equal(half(LABELS, range(6)), torch.full((6, 2, 2, 3), 128, dtype=torch.uint8))


def test_settling_decides_and_draws_nothing() -> None:
    sampler = OfLabels(engine())
    assert sampler.engine.chosen[1] == "not settled yet"
    sampler.settle(1, 5)
    assert sampler.engine.chosen[1] != "not settled yet"
    assert sampler.stats.samples == 0


def test_what_they_depend_on_tells_them_apart() -> None:
    own = OfLabels(engine()).fingerprint()
    assert own == OfLabels(engine()).fingerprint()
    others = [OfLabels(engine(3.0)), OfLabels(engine(), torch.tanh)]
    assert len({own, *(other.fingerprint() for other in others)}) == 3


def test_of_prompts() -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    import tiny_pipelines as tiny

    from reg_engine.integrations.diffusers import sample

    pipe, choices = tiny.sd(), {"scale": 3.0, "rectify": None, "steps": 2}
    sampler = OfPrompts(pipe, choices)
    sampler.settle("a cat", 0)
    found = sampler(["a cat", "two dogs"], [7, 8])
    wanted = sample(pipe, ["a cat", "two dogs"], seeds=[7, 8], progress=False, **choices)
    assert torch.equal(found, wanted.images) and sampler.stats.samples == 2
    assert sampler.fingerprint() != OfPrompts(pipe, {**choices, "steps": 3}).fingerprint()
