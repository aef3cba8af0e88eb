"""What a pipeline's call is told of prompts, negatives and seeds."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from reg_engine import InputError
from reg_engine.integrations.diffusers.asking import fitting, listed, seeds_of, words_of


class Texts:
    components = {"text_encoder": object()}

    def __call__(
        self, prompt: Any, negative_prompt: Any, guidance_scale: float, generator: Any, frames: int
    ) -> None: ...


class Labels:
    def __call__(self, class_labels: Any, guidance_scale: float, generator: Any) -> None: ...


def test_prompts_are_repeated_with_their_negatives() -> None:
    assert listed(["a", "b"], {}, ["x", "y"], 2) == (["a", "a", "b", "b"], ["x", "x", "y", "y"])
    assert listed("a", {}, "x", 1) == (["a"], ["x"]) and listed(7, {}, None, 2) == ([7, 7], None)
    assert listed(None, {"prompt_embeds": torch.zeros(3, 2)}, None, 1) == ([None] * 3, None)
    for given, words in (
        ((["a"], {}, ["x", "y"], 1), "negative: are 2 for 1 prompts"),
        ((None, {}, None, 2), "per_prompt: is given beside embeddings"),
        (([], {}, None, 1), "prompt: is empty"),
    ):
        with pytest.raises(InputError, match=words):
            listed(*given)


def test_seeds_are_one_a_picture() -> None:
    assert seeds_of(None, 3) == [0, 1, 2] and seeds_of(iter([5, 4]), 2) == [5, 4]
    with pytest.raises(InputError, match="seeds: are 2 for 3 pictures"):
        seeds_of([5, 4], 3)


def test_words_turn_guidance_on() -> None:
    found = words_of(Texts(), ["a", "b"], ["x", "y"], [5, 6])
    seeds = [one.initial_seed() for one in found.pop("generator")]
    assert seeds == [5, 6]
    assert found == {"prompt": ["a", "b"], "negative_prompt": ["x", "y"], "guidance_scale": 2.0}
    labels = words_of(Labels(), [3], None, [0])
    assert labels["class_labels"] == [3] and labels["guidance_scale"] == 2.0
    with pytest.raises(InputError, match="holds other than labels"):
        words_of(Labels(), ["three"], None, [0])


def test_other_keywords_fit_the_call_or_are_named() -> None:
    assert fitting(Texts(), {"prompt": ["a"]}, {"frames": 3}) == {"frames": 3}
    with pytest.raises(InputError, match="frame: is not taken by a Texts"):
        fitting(Texts(), {}, {"frame": 3})
    with pytest.raises(InputError, match="prompt: is given as a keyword of the pipeline's call"):
        fitting(Texts(), {"prompt": ["a"]}, {"prompt": "b"})
    with pytest.raises(InputError, match="size: is not taken by a Labels"):
        fitting(Labels(), {"height": 8}, {})
