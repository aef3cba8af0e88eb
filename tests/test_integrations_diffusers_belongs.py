"""Which adapter belongs to which pipeline; the engine samples with it, and it can be trained."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

import tiny_pipelines  # noqa: E402
from pipeline_adapters import distance, made, merged, own, pipeline, rows_of  # noqa: E402
from torch import Tensor  # noqa: E402

from reg_engine import InputError, denoiser_of  # noqa: E402
from reg_engine.distillation import Distillation, distill  # noqa: E402
from reg_engine.integrations.diffusers import enable, reg, sample  # noqa: E402
from reg_engine.networks.adapter import Adapter  # noqa: E402

SHORT = Distillation(
    **{"steps": 2, "round_steps": 1, "paths": 2, "samples": 2, "pairs": 2, "parts": 1},
    solver_steps=(3, 4),
    share=0.3,
)


def test_other_models_and_chains_are_refused_before_anything_runs() -> None:
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    pipe, asked = tiny_pipelines.sd(), []
    rows_of(pipe, asked)
    found = own("sd")
    with pytest.raises(InputError, match="adapter: belongs to another model: .*weights"):
        enable(pipe, adapter=own("dit"))
    scheduler, config = pipe.scheduler, dict(pipe.scheduler.config)
    for changed, words in (
        ({"beta_end": 0.02}, "schedule"),
        ({"beta_schedule": "linear"}, "schedule"),
        ({"prediction_type": "v_prediction"}, "prediction"),
    ):
        pipe.scheduler = DDIMScheduler(**{**tiny_pipelines.BETAS, **changed})
        with pytest.raises(InputError, match=f"belongs to another model: {words}"):
            enable(pipe, adapter=found)
        pipe.scheduler = scheduler
        with reg(pipe, adapter=found):
            pipe.scheduler = DDIMScheduler(**{**tiny_pipelines.BETAS, **changed})
            with pytest.raises(InputError, match=f"belongs to another model: {words}"):
                made("sd", pipe, 3.0)
        pipe.scheduler = scheduler
    classes = replace(own("dit"), model={**own("dit").model, "num_classes": 10})
    with pytest.raises(InputError, match="num_classes 10 and not 1000"):
        enable(pipeline("dit"), adapter=classes)
    assert asked == []
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(config, use_karras_sigmas=True)
    with reg(pipe, adapter=found):
        assert made("sd", pipe, 3.0).isfinite().all(), "another solver of the same chain"
    with torch.no_grad():
        pipe.unet.conv_out.weight += 1e-3
    with pytest.raises(InputError, match="another model: weights"):
        enable(pipe, adapter=found)


def test_pipelines_that_an_adapter_cannot_serve() -> None:
    pipe, found = tiny_pipelines.sd(), own("sd")
    pipe.transformer_2 = copy.deepcopy(pipe.unet)
    with pytest.raises(InputError, match="with 2 networks, and an adapter is of one"):
        enable(pipe, adapter=found)
    pipe.transformer_2 = None
    pipe.unet.image_guidance_scale = 1.0
    three = type("Three", (type(pipe),), {"do_perturbed_attention_guidance": False})
    pipe.__class__, kind = three, type(pipe)
    with pytest.raises(InputError, match="is a Three, which asks for three predictions"):
        enable(pipe, adapter=found)
    pipe.__class__ = type("Scaleless", (kind,), {"__call__": lambda self, prompt: None})
    with pytest.raises(InputError, match="is a Scaleless, whose call takes no guidance scale"):
        enable(pipe, adapter=found)
    stubborn = type("Stubborn", (kind,), {"do_classifier_free_guidance": True})
    pipe.__class__ = stubborn
    with reg(pipe, adapter=found), pytest.raises(InputError, match="two predictions at scale 1"):
        made("sd", pipe, 3.0)
    pipe.__class__ = kind
    pipe.unet.conv_in.to("meta")
    with pytest.raises(InputError, match="keeps its network's weights elsewhere"):
        enable(pipe, adapter=found)


def test_the_engine_samples_a_pipeline_with_an_adapter() -> None:
    pipe, found = pipeline("sd"), own("sd")
    how = {"steps": 3, "progress": False}
    before = sample(pipe, ["a cat", "two dogs"], scale=1.0, **how).latents
    wanted = made("sd", merged(pipe, found, 3.0), 1.0)
    out = sample(pipe, ["a cat", "two dogs"], adapter=found, scale=3.0, **how)
    assert distance(out.latents, wanted) < 1e-5 < 0.05 < distance(before, wanted)
    assert out.stats.nfe == 3 and out.stats.reason.startswith("the adapter holds guidance of scale")
    two = sample(pipe, ["a cat", "two dogs"], adapter=found, **how)
    assert "scale 2" in two.stats.reason
    one = sample(pipe, ["a cat", "two dogs"], adapter=found, scale=1.0, **how)
    assert torch.equal(one.latents, before) and one.stats.reason != out.stats.reason
    assert torch.equal(sample(pipe, ["a cat", "two dogs"], scale=1.0, **how).latents, before)
    for given, words in (
        ({"negative": "bad"}, "negative: is given, and the adapter"),
        ({"rectify": "vjp"}, "rectify: is given"),
        ({"scale": 9.0}, "scale: is 9, which the adapter was not trained for"),
        ({"adapter": own("dit")}, "belongs to another model"),
    ):
        with pytest.raises(InputError, match=words):
            sample(pipe, "a cat", **{"adapter": found, **how, **given})
    with reg(pipe, adapter=found), pytest.raises(InputError, match="is enabled with an adapter"):
        sample(pipe, "a cat", **how)


def test_an_adapter_is_trained_for_a_pipelines_network(tmp_path: Path) -> None:
    """Of prompts: their embeddings are the conditions, the empty one is the reference."""
    pipe = tiny_pipelines.sd()
    told = pipe.encode_prompt(["a cat", "two dogs", ""], "cpu", 1, False)[0].detach()
    denoiser = denoiser_of(pipe, null_cond={"encoder_hidden_states": told[2]})

    def conditions(count: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {"encoder_hidden_states": told[torch.randint(2, (count,), generator=generator)]}

    out = distill(denoiser, conditions, out=tmp_path, guidance="vjp", settings=SHORT, show=False)
    found = Adapter.load(out.path)
    assert out.step == 2 and denoiser.with_adapter(out.path).adapter is not None
    wanted, before = made("sd", merged(pipe, found, 3.0), 1.0), made("sd", pipe, 1.0)
    with reg(pipe, adapter=out.path):
        made_now = made("sd", pipe, 3.0)
    assert distance(made_now, wanted) < 1e-5 < distance(before, wanted)


def test_an_adapter_is_trained_for_a_dit(tmp_path: Path) -> None:
    pipe = tiny_pipelines.dit()
    out = distill(pipe, out=tmp_path, guidance="cfg", settings=SHORT, show=False)
    found = Adapter.load(out.path)
    wanted, before = made("dit", merged(pipe, found, 3.0), 1.0), made("dit", pipe, 1.0)
    with reg(pipe, adapter=out.path):
        assert distance(made("dit", pipe, 3.0), wanted) < 1e-5 < distance(before, wanted)
