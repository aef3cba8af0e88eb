"""`with reg(pipe, adapter=...)`: the pipeline's own call without guidance, in a network whose
weights hold it."""

from __future__ import annotations

import copy
import pickle
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

import tiny_pipelines  # noqa: E402
from pipeline_adapters import distance, made, merged, own, pipeline, rows_of  # noqa: E402
from torch import Tensor  # noqa: E402

from reg_engine import Guidance, InputError, Interval, Plan  # noqa: E402
from reg_engine.integrations.diffusers import disable, enable, reg  # noqa: E402


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


def test_trained_in_float32_it_serves_the_pipeline_in_bfloat16() -> None:
    pipe = copy.deepcopy(pipeline("sd")).to(torch.bfloat16)
    before, wanted = made("sd", pipe, 1.0), made("sd", merged(pipe, own("sd"), 3.0), 1.0)
    with reg(pipe, adapter=own("sd")):
        found = made("sd", pipe, 3.0)
    assert found.dtype == torch.bfloat16
    assert distance(found, wanted) < 0.01 < 0.05 < distance(before, wanted)


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
