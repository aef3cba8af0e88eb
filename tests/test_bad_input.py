"""Bad input: one clear error that names the argument and the remedy; nothing is sampled."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from nets import CLASSES, SHAPE, TinyNet, tiny
from torch import Tensor

import reg_engine
from reg_engine import Guidance, InputError, NumericalError, Plan, schedules
from reg_engine.guidance.adjustments import Rescale
from reg_engine.guidance.directions import APG
from reg_engine.guidance.references import BadModel, Classifier
from reg_engine.guidance.weights import CFGPlusPlus, Constant, Cosine, Interval, Linear

GOOD: dict[str, Any] = {
    "cond": [0, 1],
    "scale": 2.0,
    "rectify": None,
    "steps": 3,
    "progress": False,
}


def sample(**changes: Any) -> object:
    return reg_engine.sample(changes.pop("model", None) or tiny(), **{**GOOD, **changes})


def nan_noise() -> Tensor:
    noise = torch.zeros(2, *SHAPE)
    noise[1, 0, 2, 2] = math.nan
    return noise


@pytest.mark.parametrize(
    ("changes", "argument", "says"),
    [
        ({"cond": [0, CLASSES + 1]}, "cond", "out of range"),
        ({"cond": [-1, 0]}, "cond", "out of range"),
        ({"cond": torch.tensor([0.5, 1.0])}, "cond", "integers"),
        ({"cond": ["a cat", "a dog"]}, "cond", "text encoder"),
        ({"cond": [0, 1, 2], "seeds": [0, 1]}, "cond", "3 rows for 2 seeds"),
        ({"cond": {}}, "cond", "empty"),
        ({"cond": object()}, "cond", "integer tensor"),
        ({"seeds": []}, "seeds", "range(16)"),
        ({"seeds": [0.5, 1]}, "seeds", "integers"),
        ({"seeds": [-1, 1]}, "seeds", "non-negative"),
        ({"scale": -1.0}, "scale", ">= 0"),
        ({"scale": math.nan}, "scale", "finite"),
        ({"scale": math.inf}, "scale", "finite"),
        ({"scale": "2"}, "scale", "number"),
        ({"steps": 0}, "steps", "1"),
        ({"steps": 2.5}, "steps", "integer"),
        ({"solver": "huen"}, "solver", "'heun'"),
        ({"solver": "flow_heun"}, "solver", "heun"),
        ({"solver_options": {"etta": 1.0}}, "etta", "s_churn"),
        ({"rectify": "vpj"}, "rectify", "'vjp'"),
        ({"plan": "full"}, "plan", "reg_engine.Plan"),
        ({"batch_size": 0}, "batch_size", ">= 1"),
        ({"dtype": torch.float16}, "dtype", "float32"),
        ({"device": "cuda:77"}, "device", "cpu"),
        ({"device": "nonsense"}, "device", "cpu"),
        ({"device": "meta"}, "device", "no values"),
        ({"device": True}, "device", "cpu"),
        ({"model": tiny(net=TinyNet().to("meta"))}, "device", "no values"),
        ({"memory_budget": 0, "rectify": "auto"}, "memory_budget", "bytes"),
        ({"memory_budget": -1, "rectify": "auto"}, "memory_budget", "bytes"),
        ({"memory_budget": math.nan, "rectify": "auto"}, "memory_budget", "bytes"),
        ({"rectify": lambda point, direction: point.x}, "rectify", "(cond, rectified"),
        ({"rectify": lambda point, direction: (point.x, point.x, None)}, "rectify", "NoneType"),
        ({"solver_options": ["times"]}, "solver_options", "dict"),
        ({"solver_options": {"steps": 3}}, "steps", "beside"),
        ({"solver_options": {"times": [80.0, 1.0, 0.0]}}, "times", "leave out steps"),
        ({"solver_options": {"times": [80.0]}, "steps": None}, "times", "two times"),
        ({"noise": torch.zeros(2, 1, 4, 5)}, "noise", "(2, 1, 4, 4)"),
        ({"noise": torch.zeros(2, *SHAPE, dtype=torch.long)}, "noise", "floating"),
        ({"noise": torch.zeros(2, *SHAPE, device="meta")}, "noise", "Move it"),
        ({"noise": nan_noise()}, "noise", "samples [1]"),
        ({"noise": [0.0]}, "noise", "torch.Tensor"),
        ({"model": TinyNet()}, "model", "reg_engine.Denoiser("),
        ({"schedule": "edm"}, "schedule", "reg_engine.schedules"),
        ({"guidance": Guidance(2.0)}, "scale", "Guidance(weight=scale)"),
        ({"guidance": "cfg", "scale": None}, "guidance", "reg_engine.Guidance"),
        ({"guidance_scale": 2.0}, "guidance_scale", "Known"),
        ({"model": tiny(null_cond=None)}, "null_cond", "BadModel"),
    ],
)
def test_argument_is_named_with_the_remedy(
    changes: dict[str, Any], argument: str, says: str
) -> None:
    with pytest.raises(InputError) as caught:
        sample(**changes)
    assert argument in caught.value.argument
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Guidance(weight=-1.0),
        lambda: Guidance(reference="null"),
        lambda: Guidance(direction="apg"),
        lambda: Guidance(rectify="vjpp"),
        lambda: Constant(-2.0),
        lambda: Interval(2.0, 3.0, 1.0),
        lambda: Linear(2.0, convention="sd"),
        lambda: Cosine(2.0, power=0.0),
        lambda: CFGPlusPlus(1.5),
        lambda: BadModel(TinyNet()),
        lambda: Classifier("net"),
        lambda: Plan((2.0, 1.0), ("cfg", "reg", "cond")),
        lambda: Plan((), ("all",)),
        lambda: Plan.interval(2.0, 1.0),
        lambda: Plan((1.0,), ("reg",)),
        lambda: Plan(None, ("reg",)),
        lambda: Interval(3, None, 2),
        lambda: APG(momentum="x"),
        lambda: Rescale(None),
        lambda: CFGPlusPlus("x"),
        lambda: Constant(True),
        lambda: Guidance(adjust=[None]),
        lambda: Guidance(direction=lambda point, cond, ref: None, weight=Constant),
        lambda: reg_engine.load_model(3),
        lambda: schedules.EDM(1e-300, 1e300),
        lambda: schedules.EDM(rho=1e-300),
        lambda: schedules.Flow(1e300),
        lambda: reg_engine.Denoiser(TinyNet(), "edm", tiny().schedule, 3),
        lambda: reg_engine.Denoiser(TinyNet(), "edm", tiny().schedule, ()),
        lambda: reg_engine.Denoiser(TinyNet, "edm", tiny().schedule, SHAPE),
        lambda: reg_engine.Denoiser(TinyNet(), "noise", tiny().schedule, SHAPE),
        lambda: reg_engine.Denoiser("net", "edm", tiny().schedule, SHAPE),
        lambda: reg_engine.Denoiser(TinyNet(), "edm", tiny().schedule, (0, 4)),
        lambda: reg_engine.Denoiser(TinyNet(), "edm", tiny().schedule, SHAPE, sigma_data=0.0),
    ],
)
def test_values_refuse_nonsense_when_they_are_built(build: Any) -> None:
    with pytest.raises(InputError):
        build()


class Broken(TinyNet):
    """Returns what the test wants from one call on."""

    def __init__(self, answer: Any, at: int = 0) -> None:
        super().__init__()
        self.answer, self.at = answer, at

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Any:
        out = super().forward(x, t, cond)
        return self.answer(out) if len(self.calls) > self.at else out


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda out: out[:, :, :2], "shape"),
        (lambda out: torch.cat([out, out], 1), "variance"),
        (lambda out: (out,), "tuple"),
        (lambda out: out.long(), "floating"),
        (lambda out: out[:1], "shape"),
    ],
)
def test_model_that_returns_something_else(answer: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        sample(model=tiny(net=Broken(answer)))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_bad_prediction_says_where(value: float) -> None:
    def spoil(out: Tensor) -> Tensor:
        out = out.clone()
        out[len(out) - 1] = value
        return out

    model = tiny(net=Broken(spoil, at=3))
    with pytest.raises(NumericalError) as caught:
        sample(model=model, scale=1.0, steps=6)
    rows = reg_engine.Engine(tiny(), steps=6).table.rows
    assert "evaluation 3" in str(caught.value)
    assert f"t = {rows[3].t:g}" in str(caught.value)
    assert "samples [1]" in str(caught.value)


def test_an_overflow_of_guidance_is_not_the_models() -> None:
    for scale in (1e300, 1e39):
        with pytest.raises(InputError, match="^weight at row 0: is .* Give a scale"):
            sample(scale=scale)
    with pytest.raises(NumericalError, match="guidance with w = 1e.38 gave") as caught:
        sample(scale=1e38)
    assert "model" not in str(caught.value) and "Lower the scale" in str(caught.value)
    for scale in (1.0, 900.0):
        spoiled = tiny(net=Broken(lambda out: out * math.nan))
        with pytest.raises(NumericalError, match="the model gave"):
            sample(model=spoiled, scale=scale)


def test_classifier_of_the_wrong_shape_or_classes() -> None:
    for net, says in (
        (lambda x, t: x.flatten(1).sum(1), "logits"),
        (lambda x, t: x.flatten(1)[:, :1], "1 classes"),
    ):
        with pytest.raises(InputError, match=says):
            sample(
                scale=None, rectify="auto", guidance=Guidance(2.0, Classifier(net), rectify=None)
            )


@pytest.mark.parametrize(
    ("field", "says"), [("direction", "^direction: returned"), ("adjust", "^adjust: returned")]
)
@pytest.mark.parametrize("value", [None, torch.zeros(2, 3)])
def test_a_user_function_that_returns_something_else(field: str, says: str, value: Any) -> None:
    for rectify in (None, "vjp", "fd_batched"):
        guidance = Guidance(3.0, rectify=rectify, **{field: lambda *args: value})
        with pytest.raises(InputError, match=says):
            sample(scale=None, rectify="auto", guidance=guidance)


def test_multistage_solver_refuses_cfg_plus_plus() -> None:
    with pytest.raises(InputError, match="one-stage"):
        sample(scale=None, rectify="auto", guidance=Guidance(CFGPlusPlus(0.5), rectify=None))
