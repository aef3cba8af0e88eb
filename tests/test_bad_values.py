"""A corpus of wrong values at every public argument: it works, or one error names an argument."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from nets import CLASSES, SHAPE, tiny

import reg_engine
from reg_engine import (
    FDG,
    ICG,
    PAG,
    SEG,
    SLG,
    TAG,
    APGMix,
    BadModel,
    BetaCurve,
    CFGPlusPlus,
    Classifier,
    Constant,
    Cosine,
    Denoiser,
    Engine,
    Feedback,
    Gate,
    Guidance,
    GuidedChannels,
    InputError,
    Interval,
    Linear,
    Mambo,
    Plan,
    PowerLaw,
    RegEngineError,
    Unconditional,
    rectifiers,
    schedules,
)
from reg_engine.calibration.plan import calibrate
from reg_engine.guidance.adjustments import Rescale, ZeroInit
from reg_engine.guidance.directions import APG
from reg_engine.solvers import SOLVERS, table
from reg_engine.training.config import TrainConfig

CORPUS: dict[str, Any] = {
    "None": None,
    "True": True,
    "text": "x",
    "bytes": b"x",
    "list": [],
    "dict": {},
    "nested": {"a": {"b": [1.0, "x"]}},
    "minus": -1,
    "zero": 0,
    "half": 0.5,
    "nan": math.nan,
    "inf": math.inf,
    "huge": 1e300,
    "tiny": 1e-300,
    "beyond": 10**400,
    "complex": 1j,
    "object": object(),
    "class": int,
    "function": lambda *args: None,
    "float64": np.float64(0.25),
    "array": np.array([1.0, 2.0]),
    "words": np.array(["a", "b"]),
    "tensor": torch.tensor(0.5),
    "labels": torch.tensor([1, 2, 3]),
    "matrix": torch.zeros(2, 0),
    "meta": torch.empty(2, device="meta"),
    "mixed": [1, "x", None],
}
SMALL: dict[str, Any] = {"steps": 2, "solver": "euler", "progress": False}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Layers this small only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(model: Any = None, cond: Any = (0, 1), **choices: Any) -> object:
    """A whole call: a value that is stored in the end meets what it is for."""
    choices = {**SMALL, **choices}
    if "guidance" not in choices:
        choices.setdefault("rectify", "fd")
    model = tiny() if model is None else model
    return reg_engine.sample(model, list(cond) if isinstance(cond, tuple) else cond, **choices)


def sampled(**fields: Any) -> object:
    """A Denoiser with these fields, and samples of it."""
    base = {
        "net": lambda x, t, cond: 0.1 * x,
        "prediction": "epsilon",
        "schedule": schedules.VPLinear(),
        "sample_shape": SHAPE,
        "null_cond": CLASSES,
    }
    return run(Denoiser(**{**base, **fields}))  # type: ignore[arg-type]


def guided(kind: Callable[..., Any], **base: Any) -> Callable[..., object]:
    """Guidance that holds such a value, and samples under it."""

    def call(**fields: Any) -> object:
        value = kind(**{**base, **fields})
        if kind is Guidance:
            return run(guidance=value)
        for place in ("reference", "direction", "rectify", "adjust", "weight"):
            if kind in PLACES[place]:
                rectify = {} if place == "rectify" else {"rectify": None}
                guidance = Guidance(**{place: value, **rectify})
                return run(guidance=guidance)
        raise AssertionError(kind)

    return call


def logits(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return x.flatten(1)[:, : CLASSES + 1]


PLACES: dict[str, tuple[Any, ...]] = {
    "reference": (Unconditional, BadModel, Classifier, ICG, PAG, SEG, SLG),
    "direction": (APG, APGMix, FDG),
    "rectify": tuple(rectifiers.RECTIFIERS.values()),
    "adjust": (Rescale, ZeroInit, TAG, GuidedChannels),
    "weight": (
        Constant,
        Interval,
        Linear,
        Cosine,
        CFGPlusPlus,
        Mambo,
        PowerLaw,
        BetaCurve,
        Gate,
        Feedback,
    ),
}
BASES: dict[Any, dict[str, Any]] = {
    BadModel: {"net": tiny()},
    Classifier: {"net": logits},
    Constant: {"scale": 2.0},
    Interval: {"scale": 2.0, "lo": 0.1, "hi": 10.0},
    Linear: {"start": 2.0},
    Cosine: {"scale": 2.0},
    CFGPlusPlus: {"strength": 0.5},
    PowerLaw: {"strength": 0.5},
    BetaCurve: {"scale": 2.0},
    Gate: {"scale": 2.0},
    Feedback: {"temperature": 0.1, "offset": -0.1},
    TAG: {"amplify": 1.3},
    **{kind: {"layers": "attend"} for kind in (PAG, SEG, SLG)},
}
# What is called, with which parameters, and what it does with them.
DOORS: dict[str, tuple[Callable[..., Any], Callable[..., object]]] = {
    "sample": (Engine, run),
    "conditions": (reg_engine.sample, run),
    "Denoiser": (Denoiser, sampled),
    "Guidance": (Guidance, guided(Guidance)),
    "Plan": (Plan, lambda **f: run(plan=Plan(**{"edges": (), "modes": ("reg",), **f}))),
    "interval": (Plan.interval, lambda **f: Plan.interval(**{"lo": 0.1, "hi": 1.0, **f})),
    "load_plan": (Plan.load, Plan.load),
    "load_model": (reg_engine.load_model, reg_engine.load_model),
    "load_classifier": (reg_engine.load_classifier, reg_engine.load_classifier),
    "calibrate": (calibrate, lambda **f: calibrate(**{"model": tiny(), "cond": [0], **SMALL, **f})),
    "table": (table, lambda **f: table(**{"solver": "euler", "schedule": schedules.EDM(), **f})),
    "TrainConfig": (TrainConfig, lambda **f: TrainConfig(**{"steps": 1, **f})),
    **{
        kind.__name__: (kind, guided(kind, **BASES.get(kind, {})))
        for kinds in PLACES.values()
        for kind in kinds
    },
    **{
        f"schedule {kind.__name__}": (kind, lambda kind=kind, **f: table("euler", chain(kind, **f)))
        for kind in (getattr(schedules, name) for name in schedules.__all__)
        if isinstance(kind, type) and not inspect.isabstract(kind)
    },
}


def chain(kind: Any, **fields: Any) -> Any:
    betas = {"values": [0.1, 0.2, 0.3]} if kind is schedules.Betas else {}
    return kind(**{**betas, **fields})


def parameters(function: Callable[..., Any]) -> list[str]:
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    signature = inspect.signature(function)
    return [name for name, p in signature.parameters.items() if p.kind not in kinds]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("door", "argument"),
    [(door, name) for door, (function, _) in DOORS.items() for name in parameters(function)],
)
def test_a_wrong_value_is_an_input_error_or_none(door: str, argument: str) -> None:
    for name, value in CORPUS.items():
        try:
            DOORS[door][1](**{argument: value})
        except RegEngineError as error:
            assert "\n" not in str(error), name
        except Exception as error:
            raise AssertionError(f"{door}({argument}={name}): {error!r}") from error


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_wrong_option_of_a_solver_is_named(solver: str) -> None:
    schedule = schedules.Flow() if SOLVERS[solver].flow_only else schedules.VPLinear()
    for option in (*SOLVERS[solver].options, "times"):
        for value in CORPUS.values():
            try:
                table(solver, schedule, 6, **{option: value})
            except InputError as error:
                assert option in error.argument or error.argument in ("s_tmin", "t")
