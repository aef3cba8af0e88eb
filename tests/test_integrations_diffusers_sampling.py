"""Prompts to pictures in one line, against the pipelines' own calls."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

import tiny_pipelines  # noqa: E402
from pipeline_peer import NAMES, NEGATIVES, PROMPTS, SIZE, called, peer  # noqa: E402
from torch import Tensor  # noqa: E402

from reg_engine import InputError, Interval  # noqa: E402
from reg_engine.integrations.diffusers import sample  # noqa: E402


@cache
def pipeline(name: str) -> Any:
    return getattr(tiny_pipelines, name)()


def sampled(name: str, **changes: Any) -> Any:
    given: dict[str, Any] = {"scale": 4.0, "steps": 3, "size": SIZE, "progress": False}
    if name in ("pixart", "flux", "auraflow", "wan"):
        given["max_sequence_length"] = 16
    if name == "pixart":
        given |= {"use_resolution_binning": False, "clean_caption": False}
    if name == "wan":
        given |= {"num_frames": 9, "size": 64}
    given["negative"] = NEGATIVES
    prompt = PROMPTS
    if name == "dit":
        prompt = [1, 2]
        del given["size"], given["negative"]
    return sample(pipeline(name), changes.pop("prompt", prompt), **{**given, **changes})


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def pictures(pipe: Any, **given: Any) -> Tensor:
    seeds = [torch.Generator().manual_seed(seed) for seed in range(2)]
    found = pipe(**given, num_inference_steps=3, generator=seeds, output_type="np")[0]
    return (torch.as_tensor(found) * 255).round().to(torch.uint8)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "dit"])
def test_latents_are_the_pipelines_own_and_those_of_the_plain_statement(name: str) -> None:
    plain = called(name, pipeline(name))
    out = sampled(name, rectify=None)
    assert distance(out.latents, plain) < 1e-5
    assert (out.stats.nfe, out.stats.estimator) == (6, "none")
    with peer(name, pipeline(name)):
        wanted = called(name, pipeline(name))
    out = sampled(name, rectify="vjp")
    assert distance(out.latents, wanted) < 1e-5 < distance(plain, wanted)
    assert out.stats.backward == 3 and torch.equal(called(name, pipeline(name)), plain)


def test_pictures_are_decoded_by_the_pipeline() -> None:
    given = {"prompt": PROMPTS, "negative_prompt": NEGATIVES, "height": SIZE, "width": SIZE}
    wanted = pictures(pipeline("sd"), guidance_scale=4.0, **given)
    out = sampled("sd", rectify=None)
    assert (out.images.int() - wanted.int()).abs().max() <= 1 and out.images.dtype == torch.uint8
    assert [picture.size for picture in out.pil] == [(SIZE, SIZE)] * 2
    assert out.pil[1].getpixel((3, 5)) == tuple(out.images[1, 5, 3].tolist())


def test_classes() -> None:
    wanted = pictures(pipeline("dit"), class_labels=[1, 2], guidance_scale=4.0)
    out = sampled("dit", rectify=None)
    assert (out.images.int() - wanted.int()).abs().max() <= 1


def test_a_video_is_pictures_of_pictures() -> None:
    out = sampled("wan", rectify="alternate")
    assert out.images.shape == (2, 9, 64, 64, 3) and [len(video) for video in out.pil] == [9, 9]
    assert out.stats.estimator == "alternate"


def test_a_picture_belongs_to_its_seed() -> None:
    both = sampled("sd3", seeds=[5, 9])
    alone = sampled("sd3", prompt=PROMPTS[1], negative=NEGATIVES[1], seeds=[9])
    assert distance(alone.latents[0], both.latents[1]) < 1e-4
    assert distance(both.latents[0], both.latents[1]) > 0.1


def test_several_pictures_of_a_prompt_and_one_negative_for_all() -> None:
    out = sampled("sd3", per_prompt=2, negative="bad")
    again = sampled("sd3", prompt=[PROMPTS[0]] * 2 + [PROMPTS[1]] * 2, negative=["bad"] * 4)
    assert torch.equal(out.latents, again.latents) and len(out.images) == 4


def test_solvers_weights_and_dampings_of_the_engine() -> None:
    out = sampled("sd", solver="heun", rectify="fd_batched")
    assert (out.stats.solver, out.stats.nfe) == ("heun", 15)
    none = sampled("sd", scale=Interval(4.0, 1e-6, 1e-5))
    assert none.stats.nfe == 3 and distance(none.latents, sampled("sd", scale=1.0).latents) < 1e-6
    default = sampled("sd", scale=None)
    assert torch.equal(default.latents, sampled("sd", scale=2.0).latents)


def test_steps_that_flux_is_told_by_its_own_sigmas() -> None:
    """An odd number of them is no Heun scheduler's."""
    for steps in (3, 4, 5):
        out = sampled("flux", rectify=None, steps=steps)
        assert distance(out.latents, called("flux", pipeline("flux"), steps=steps)) < 1e-5


def test_embeddings_in_the_place_of_prompts() -> None:
    pipe = tiny_pipelines.sd()
    told = pipe.encode_prompt(PROMPTS, "cpu", 1, True, negative_prompt=NEGATIVES)
    given = {"scale": 4.0, "steps": 3, "size": SIZE, "progress": False}
    wanted = sample(pipe, PROMPTS, negative=NEGATIVES, **given)
    pipe.text_encoder = None
    out = sample(pipe, prompt_embeds=told[0], negative_prompt_embeds=told[1], **given)
    assert torch.equal(out.latents, wanted.latents)
    with pytest.raises(InputError, match="without a text encoder. Give prompt_embeds="):
        sample(pipe, PROMPTS, **given)
    with pytest.raises(InputError, match="prompt: is empty"):
        sample(pipe, **given)
    with pytest.raises(InputError, match="per_prompt: is given beside embeddings"):
        sample(pipe, prompt_embeds=told[0], per_prompt=2, **given)


def test_the_network_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a scheduler's times copies it."""
    pipe = tiny_pipelines.sd()

    def refused(self: Any, memo: Any) -> Any:
        raise AssertionError("the network was copied")

    monkeypatch.setattr(type(pipe.unet), "__deepcopy__", refused, raising=False)
    sample(pipe, PROMPTS, steps=2, size=SIZE, progress=False)


def test_nothing_is_left_behind_after_an_error() -> None:
    pipe = tiny_pipelines.sd()
    step = pipe.scheduler.step
    with pytest.raises(InputError, match="scale"):
        sample(pipe, PROMPTS, scale=-1.0, steps=2, size=SIZE, progress=False)
    assert "_compiled_call_impl" not in pipe.unet.__dict__ and pipe.scheduler.step == step
    assert "step" not in vars(pipe.scheduler)


def test_pipelines_that_start_from_a_picture_are_refused() -> None:
    from diffusers import StableDiffusionImg2ImgPipeline

    pipe = StableDiffusionImg2ImgPipeline(
        **tiny_pipelines.sd().components, requires_safety_checker=False
    )
    image = torch.rand(2, 3, SIZE, SIZE)
    with pytest.raises(InputError, match=r"starts from a picture.*with reg\(pipe\)"):
        sample(pipe, PROMPTS, steps=4, progress=False, image=image, strength=0.5)


def test_bad_input() -> None:
    pipe = pipeline("sd3")
    for changes, problem in (
        ({"prompt": []}, "prompt: is empty"),
        ({"prompt": [1, 2]}, "prompt: holds other than texts"),
        ({"negative": ["a", "b", "c"]}, "negative: are 3 for 2 prompts"),
        ({"seeds": [1]}, "seeds: are 1 for 2 pictures"),
        ({"per_prompt": 0}, "per_prompt"),
        ({"steps": 0}, "steps"),
        ({"solver": "hoin"}, "solver"),
    ):
        with pytest.raises(InputError, match=problem):
            sampled("sd3", **changes)
    for changes, problem in (
        ({"negative": "bad"}, "negative: is not taken by a DiTPipeline"),
        ({"size": 16}, "size: is not taken by a DiTPipeline"),
        ({"frames": 3}, "frames: is not taken by a DiTPipeline"),
        ({"output_type": "pil"}, "output_type: is given as a keyword"),
        ({"guidance_scale": 1.0}, "guidance_scale: is given as a keyword"),
    ):
        with pytest.raises(InputError, match=problem):
            sampled("dit", **changes)
    with pytest.raises(InputError, match="without a network"):
        sample(type("P", (), {"__call__": lambda self, prompt: None})(), "a cat")
    assert "_compiled_call_impl" not in pipe.transformer.__dict__
