"""REG as a guider of modular pipelines, against its plain statement in the classic ones."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")
blocks = pytest.importorskip("diffusers.modular_pipelines", reason="no modular pipelines")

import tiny_pipelines  # noqa: E402
from diffusers import ClassifierFreeGuidance  # noqa: E402
from pipeline_peer import NEGATIVES, PROMPTS, SIZE, called, peer  # noqa: E402
from torch import Tensor  # noqa: E402

from reg_engine import InputError  # noqa: E402
from reg_engine.integrations.diffusers import RectifiedGradientGuidance  # noqa: E402

BLOCKS = {
    "sdxl": "StableDiffusionXLAutoBlocks",
    "sd3": "StableDiffusion3AutoBlocks",
    "wan": "WanBlocks",
}


@cache
def classic(name: str) -> Any:
    return getattr(tiny_pipelines, name)()


@cache
def wanted(name: str) -> Tensor:
    with peer(name, classic(name)):
        return called(name, classic(name))


@cache
def plain(name: str) -> Tensor:
    return called(name, classic(name))


def modular(name: str, guider: Any) -> Tensor:
    """Latents of the modular pipeline with the classic one's parts, for the same call."""
    pipe = getattr(blocks, BLOCKS[name])().init_pipeline()
    parts = {k: v for k, v in classic(name).components.items() if k in pipe.component_names}
    pipe.update_components(**{k: v for k, v in parts.items() if v is not None}, guider=guider)
    pipe.set_progress_bar_config(disable=True)
    seeds = [torch.Generator().manual_seed(seed) for seed in range(2)]
    given = {"prompt": PROMPTS, "negative_prompt": NEGATIVES, "num_inference_steps": 3}
    given |= {"generator": seeds, "height": SIZE, "width": SIZE, "output_type": "latent"}
    if name == "wan":
        given |= {"height": 64, "width": 64, "num_frames": 9, "max_sequence_length": 16}
        given["output_type"] = "np"
    found = pipe(**given).values
    return found["latents"] if name == "wan" else found["images"]


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("name", BLOCKS)
def test_it_is_the_plain_statement(name: str) -> None:
    guider = RectifiedGradientGuidance.of(
        classic(name).scheduler, guidance_scale=4.0, rectify="vjp"
    )
    assert (
        distance(modular(name, guider), wanted(name)) < 1e-5 < distance(plain(name), wanted(name))
    )
    assert (guider.stats.nfe, guider.stats.backward) == (7, 3)
    assert distance(modular(name, ClassifierFreeGuidance(4.0)), plain(name)) < 1e-5


def test_saved_and_loaded(tmp_path: Path) -> None:
    scheduler = classic("sd3").scheduler
    guider = RectifiedGradientGuidance.of(scheduler, guidance_scale=4.0, rectify="vjp", stop=0.9)
    guider.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "guider_config.json").read_text())["rectify"] == "vjp"
    again = RectifiedGradientGuidance.from_pretrained(tmp_path)
    assert dict(again.config) == dict(guider.config)
    assert torch.equal(modular("sd3", again), modular("sd3", guider))


def test_where_it_guides() -> None:
    """Outside of [start, stop) and at scale 1 the network is asked as ever, and once."""
    scheduler = classic("sd3").scheduler
    for changes in ({"enabled": False}, {"guidance_scale": 1.0}):
        guider = RectifiedGradientGuidance.of(scheduler, **{"guidance_scale": 4.0, **changes})
        assert torch.equal(modular("sd3", guider), modular("sd3", ClassifierFreeGuidance(1.0)))
        assert guider.stats is None
    guider = RectifiedGradientGuidance.of(scheduler, guidance_scale=4.0, rectify="vjp", stop=0.4)
    modular("sd3", guider)
    assert guider.stats.backward == 1
    assert "_compiled_call_impl" not in classic("sd3").transformer.__dict__


def test_the_original_formulation_counts_w() -> None:
    guider = RectifiedGradientGuidance.of(
        classic("sd3").scheduler, guidance_scale=3.0, rectify="vjp", use_original_formulation=True
    )
    assert distance(modular("sd3", guider), wanted("sd3")) < 1e-5


def test_a_second_run_is_a_new_way() -> None:
    guider = RectifiedGradientGuidance.of(
        classic("sdxl").scheduler, guidance_scale=4.0, rectify="fd_batched"
    )
    first = modular("sdxl", guider)
    assert torch.equal(modular("sdxl", guider), first) and guider.stats.samples == 2


def test_the_cost_is_that_of_all_networks() -> None:
    """Two experts take turns along the way."""
    guider = RectifiedGradientGuidance.of(classic("sd3").scheduler, rectify="vjp")
    modular("sd3", guider)
    (hook,) = guider._hooks.values()
    guider._hooks[torch.nn.Linear(1, 1)] = hook
    assert (guider.stats.nfe, guider.stats.backward, guider.stats.samples) == (14, 6, 2)


def test_bad_input() -> None:
    scheduler = classic("sd3").scheduler
    with pytest.raises(InputError, match="'blend' depends on w"):
        RectifiedGradientGuidance.of(scheduler, rectify="blend")
    for config in (
        None,
        {},
        {"_class_name": "ClassifierFreeGuidance"},
        {"_class_name": "NoSuchScheduler"},
    ):
        with pytest.raises(InputError, match=r"no scheduler of diffusers.*\.of\(pipe\.scheduler"):
            RectifiedGradientGuidance(scheduler=config)
    with pytest.raises(InputError, match="no known alpha, sigma"):
        RectifiedGradientGuidance(scheduler={"_class_name": "EDMEulerScheduler"})
