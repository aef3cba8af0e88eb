"""Samples as images by number: in batches, in pieces, and known by what they depend on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nets import CLASSES, TinyNet

from reg_engine import Denoiser, Engine, schedules
from reg_engine.pictures.images import to_uint8
from reg_engine.reproduce.sampled import Classes

LABELS = torch.arange(6) % CLASSES


def model() -> Denoiser:
    net = TinyNet(size=12)
    return Denoiser(net, "edm", schedules.EDM(), (3, 2, 2), CLASSES, num_classes=CLASSES)


def source(scale: float = 2.0, labels: torch.Tensor = LABELS, decoder: Any = None) -> Classes:
    engine = Engine(model(), scale=scale, rectify=None, steps=3, progress=False)
    return Classes("tiny", engine, labels, decoder)


def test_image_k_is_a_function_of_seed_k() -> None:
    found = source()
    whole = found.read(range(6))
    out = Engine(model(), scale=2.0, rectify=None, steps=3, progress=False).sample(LABELS, range(6))
    wanted = to_uint8(out.samples).permute(0, 3, 1, 2)
    assert whole.numbers == list(range(6)) and whole.images.dtype == torch.uint8
    assert torch.equal(whole.images, wanted)
    assert torch.equal(source().read(range(2, 4)).images, wanted[2:4])
    assert (len(found), found.stats.samples, found.stats.nfe) == (6, 6, out.stats.nfe)


def test_pictures_are_the_decoders() -> None:
    found = source(decoder=lambda samples: torch.zeros_like(samples)).read(range(2))
    assert torch.equal(found.images, torch.full((2, 3, 2, 2), 128, dtype=torch.uint8))


def test_what_they_depend_on_tells_them_apart() -> None:
    own = source().fingerprint()
    assert own == source().fingerprint()
    others = [source(3.0), source(labels=LABELS.flip(0)), source(decoder=torch.tanh)]
    assert len({own, *(other.fingerprint() for other in others)}) == 4


def test_of_prompts_in_pieces() -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    import tiny_pipelines as tiny

    from reg_engine import Guidance
    from reg_engine.integrations.diffusers import sample
    from reg_engine.reproduce.sampled import Prompts

    pipe, prompts = tiny.sd(), ["a cat", "two dogs", "a cat"]
    choices = {"guidance": Guidance(3.0, rectify="fd_batched"), "steps": 2}
    found = Prompts("tiny", pipe, prompts, choices)
    part = found.read(range(1, 3))
    wanted = sample(pipe, prompts[1:], seeds=[1, 2], progress=False, **choices)
    assert torch.equal(part.images, wanted.images.permute(0, 3, 1, 2))
    assert found.stats.samples == 2 and found.stats.nfe == wanted.stats.nfe
    other = Prompts("tiny", pipe, prompts, {**choices, "steps": 3})
    words = Prompts("tiny", pipe, prompts[::-1], choices)
    assert len({found.fingerprint(), other.fingerprint()}) == 2
    assert words.fingerprint() == found.fingerprint()  # the same words backwards
    assert Prompts("t", pipe, prompts[:2], choices).fingerprint() != found.fingerprint()
