"""`with reg(pipe, adapter=...)`: the pipeline's own call without guidance, in a network whose
weights hold it."""

from __future__ import annotations

import copy
import pickle
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

import tiny_pipelines  # noqa: E402
from pipeline_adapters import adapter, merged, network  # noqa: E402
from torch import Tensor  # noqa: E402

from reg_engine import Guidance, InputError, Interval, Plan, denoiser_of  # noqa: E402
from reg_engine.distillation import Distillation, distill  # noqa: E402
from reg_engine.integrations.diffusers import disable, enable, reg, sample  # noqa: E402
from reg_engine.networks.adapter import Adapter  # noqa: E402

SHORT = Distillation(
    **{"steps": 2, "round_steps": 1, "paths": 2, "samples": 2, "pairs": 2, "parts": 1},
    solver_steps=(3, 4),
    share=0.3,
)


@cache
def pipeline(name: str) -> Any:
    return getattr(tiny_pipelines, name)()


@cache
def own(name: str) -> Adapter:
    return adapter(pipeline(name))


def made(name: str, pipe: Any, scale: float | None, steps: int = 3, **more: Any) -> Tensor:
    """Two samples, whatever the pipeline calls its scale."""
    given: dict[str, Any] = {"num_inference_steps": steps, "output_type": "latent", **more}
    if scale is not None:
        given["true_cfg_scale" if name == "flux" else "guidance_scale"] = scale
    if name == "dit":
        given |= {"output_type": "np", "generator": torch.Generator().manual_seed(0)}
        return torch.as_tensor(pipe([1, 2], **given)[0])
    given |= {"generator": [torch.Generator().manual_seed(seed) for seed in range(2)]}
    size = {"height": 64, "width": 64, "num_frames": 9} if name == "wan" else tiny_pipelines.SIZE
    given |= size | ({} if name in ("sd", "sdxl", "sd3") else {"max_sequence_length": 16})
    if name == "pixart":
        given |= {"use_resolution_binning": False, "clean_caption": False}
    return pipe(["a cat", "two dogs"], **given)[0]


def distance(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def rows_of(pipe: Any, asked: list[int]) -> Any:
    """Notes how many rows the network is asked for."""
    return network(pipe).register_forward_pre_hook(
        lambda module, args, kwargs: asked.append(
            len(kwargs.get("hidden_states", args[0] if args else None))
        ),
        with_kwargs=True,
    )


@pytest.mark.parametrize("name", ["sd", "sdxl", "dit", "pixart", "sd3", "flux", "auraflow", "wan"])
def test_it_is_the_changed_network_without_guidance(name: str) -> None:
    """In float64, against weights that were merged by hand; the change itself is in float32."""
    pipe, asked = copy.deepcopy(pipeline(name)).to(torch.float64), []
    before = made(name, pipe, 1.0)
    wanted = made(name, merged(pipe, own(name), 3.0), 1.0)
    handle = rows_of(pipe, asked)
    try:
        with reg(pipe, adapter=own(name)) as student:
            found = made(name, pipe, 3.0)
    finally:
        handle.remove()
    assert distance(found, wanted) < 1e-6 < 0.05 < distance(before, wanted)
    assert asked == [2, 2, 2], "one evaluation a step, of the samples alone"
    stats = student.stats
    assert (stats.nfe, stats.backward, stats.samples, stats.modes) == (3, 0, 2, {"cond": 3})
    assert stats.reason == "the adapter holds guidance of scale 3: one evaluation a step"
    with reg(pipe, adapter=own(name), scale=3.0):
        assert torch.equal(made(name, pipe, 5.0), found)
    assert torch.equal(made(name, pipe, 1.0), before)


@pytest.mark.parametrize("name", ["sd", "dit", "flux"])
def test_scale_one_is_the_conditional_pipeline_bitwise(name: str) -> None:
    pipe = pipeline(name)
    before, guided = made(name, pipe, 1.0), made(name, pipe, 4.0)
    with reg(pipe, adapter=own(name)) as student:
        for scale in (1.0, 0.0, 0.5):
            assert torch.equal(made(name, pipe, scale), before) and student.stats is None
        assert not torch.equal(made(name, pipe, 3.0), before) and student.stats is not None
        made(name, pipe, 1.0)
        assert student.stats is None, "of the last call"
    with reg(pipe, adapter=own(name), scale=1):
        assert torch.equal(made(name, pipe, 5.0), before)
    assert torch.equal(made(name, pipe, 4.0), guided)


def test_the_pipelines_own_scale_counts_where_none_is_given() -> None:
    pipe = pipeline("dit")
    with reg(pipe, adapter=own("dit")):
        assert torch.equal(made("dit", pipe, None), made("dit", pipe, 4.0))
    pipe = pipeline("flux")
    before = made("flux", pipe, None)
    with reg(pipe, adapter=own("flux")):
        with pytest.warns(RuntimeWarning, match="true_cfg_scale of the FluxPipeline is 1 where"):
            assert torch.equal(made("flux", pipe, None), before)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made("flux", pipe, 1.0)
            assert torch.equal(made("flux", pipe, 1.0, guidance_scale=7.0), before)
    with reg(pipeline("sd"), adapter=own("sd")):
        words = r"guidance_scale: is 7\.5, which the adapter was not"
        with pytest.raises(InputError, match=words):
            made("sd", pipeline("sd"), None)


def test_whatever_happens_the_pipeline_is_itself_again() -> None:
    pipe = tiny_pipelines.sd()
    kind, before = type(pipe), made("sd", pipe, 4.0)
    held = dict(pipe.unet.named_parameters())
    places = {name: dict(module.__dict__) for name, module in pipe.unet.named_modules()}

    def stop(pipe: Any, step: int, t: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        worn = dict(pipe.unet.named_parameters())
        assert list(worn) == list(held) and not any(
            worn[name] is held[name] for name in held if name.startswith("conv_in")
        )
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), reg(pipe, adapter=own("sd")):
        assert type(pipe).__name__ == kind.__name__ and isinstance(pipe, kind)
        made("sd", pipe, 3.0, callback_on_step_end=stop)
    with pytest.raises(ValueError), reg(pipe, adapter=own("sd")):
        pipe(3, guidance_scale=3.0)
    with pytest.raises(TypeError, match="unknown"), reg(pipeline("dit"), adapter=own("dit")):
        pipeline("dit")([1], unknown=1)
    assert type(pipe) is kind
    now = dict(pipe.unet.named_parameters())
    assert list(now) == list(held) and all(now[name] is held[name] for name in held)
    assert {name: dict(m.__dict__) for name, m in pipe.unet.named_modules()} == places
    assert torch.equal(made("sd", pipe, 4.0), before)


def test_between_calls_and_in_copies_it_is_plain() -> None:
    pipe = tiny_pipelines.sd()
    before, kind = made("sd", pipe, 4.0), type(pipe)
    weights = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    with reg(pipe, adapter=own("sd")):
        made("sd", pipe, 3.0)
        assert all(torch.equal(v, weights[n]) for n, v in pipe.unet.state_dict().items())
        for other in (copy.deepcopy(pipe), copy.copy(pipe)):
            assert type(other) is kind and torch.equal(made("sd", other, 4.0), before)
        assert type(pickle.loads(pickle.dumps(pipe))) is kind
    handle = enable(pipe, adapter=own("sd"))
    with pytest.raises(InputError, match="is enabled already"):
        enable(pipe, adapter=own("sd"))
    other = type(pipe)(**pipe.components, requires_safety_checker=False)
    with pytest.raises(InputError, match="network from another pipeline that is enabled"):
        enable(other)
    disable(pipe)
    assert type(pipe) is kind and handle.stats is None


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


def test_what_does_not_go_with_an_adapter() -> None:
    pipe, found = tiny_pipelines.sd(), own("sd")
    for given, words in (
        ({"rectify": "vjp"}, "rectify: is given, and the adapter was trained with its own"),
        ({"guidance": Guidance(2.0)}, "guidance: is given, and the adapter holds guidance"),
        ({"plan": Plan.interval(0.1, 2.0)}, "plan: is given, and an adapter takes one evaluation"),
        ({"memory_budget": 1e9}, "memory_budget: is given, and an adapter has no use for it"),
        ({"backend": "reference"}, "backend: is given"),
        ({"scale": 6.5}, r"scale: is 6\.5, which the adapter was not trained for"),
        ({"scale": 0.5}, r"scale: is 0\.5"),
        ({"scale": Interval(3.0, 0.1, 2.0)}, "scale: is Interval"),
        ({"adapter": "none.safetensors"}, "adapter: .*no file"),
    ):
        with pytest.raises(InputError, match=words):
            enable(pipe, **{"adapter": found, **given})
    with reg(pipe, adapter=found):
        for given, words in (
            ({"negative_prompt": ["bad", "worse"]}, "negative_prompt: is given, and the adapter"),
            ({"guidance_rescale": 0.7}, "guidance_rescale: is given"),
            ({"scale": 6.5}, r"guidance_scale: is 6\.5, which the adapter was not trained for"),
            ({"scale": float("nan")}, "guidance_scale: is nan"),
        ):
            with pytest.raises(InputError, match=words):
                made("sd", pipe, **{"scale": 3.0, **given})
        wanted = made("sd", pipe, 3.0)
        assert torch.equal(made("sd", pipe, 3.0, negative_prompt=["", ""]), wanted)
    wide = replace(found, extrapolate=True)
    with reg(pipe, adapter=wide) as student, pytest.warns(UserWarning, match="6.5 is beyond"):
        made("sd", pipe, 6.5)
    assert student.stats.reason.endswith("; extrapolated from 1 to 6")


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


def test_pipelines_that_ask_twice_in_spite_of_it_are_found_out() -> None:
    """Without the property that says so: both in one batch, or one after the other."""
    pipe = tiny_pipelines.dit()
    kind = type(pipe)
    plainly = kind.__call__

    def call(self: Any, *args: Any, guidance_scale: float = 4.0, **kwargs: Any) -> Any:
        return plainly(self, *args, guidance_scale=2.0, **kwargs)

    pipe.__class__ = type("Doubled", (kind,), {"__call__": call})
    with reg(pipe, adapter=own("dit")), pytest.raises(InputError, match="is a Doubled that asks"):
        made("dit", pipe, 3.0)
    assert type(pipe).__name__ == "Doubled"


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
