"""Published defaults: what a call that leaves a choice out means. To change one breaks users."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch

import reg_engine
from reg_engine import Denoiser, Engine, Guidance, Plan, schedules
from reg_engine.calibration.damping import calibrate_damping
from reg_engine.calibration.plan import calibrate
from reg_engine.guidance.adjustments import Clip, Rescale, ZeroInit
from reg_engine.guidance.damped import Damped
from reg_engine.guidance.directions import APG, APGMix, Delta
from reg_engine.guidance.feedback import Feedback
from reg_engine.guidance.frequency import FDG
from reg_engine.guidance.independent import ICG
from reg_engine.guidance.perturbed import SEG
from reg_engine.guidance.references import BadModel, Classifier, Unconditional
from reg_engine.guidance.sample_weights import BetaCurve, Gate, Mambo, PowerLaw
from reg_engine.guidance.weights import Constant, Cosine, Linear
from reg_engine.loop.stats import Output, Stats
from reg_engine.plan import MODES
from reg_engine.rectifiers import (
    FD,
    JVP,
    RECTIFIERS,
    VJP,
    Diagonal,
    DiagonalBatched,
    DiagonalJVP,
    FDBatched,
)
from reg_engine.solvers import SOLVERS

VP = {
    "train_steps": 1000, "prior": "unit", "times": None, "spacing": "trailing", "steps_offset": 0,
    "final": "zero", "rounded": True, "extra_step": False, "ends": "linspace", "terminal": None,
}  # fmt: skip
DEFAULTS: dict[Any, dict[str, Any]] = {
    Engine: {
        "rectify": "auto", "solver": "heun", "capture": "auto", "compile": False, "progress": True,
        **dict.fromkeys((
            "scale", "guidance", "plan", "solver_options", "schedule", "batch_size", "device",
            "dtype", "memory_budget", "backend", "postprocess", "refine",
        )),
    },
    Denoiser: {
        "null_cond": None, "sigma_data": 0.5, "num_classes": None, "input_scaling": None,
        "modules": None, "dtype": None, "extra": None, "time": "float", "value_range": (-1.0, 1.0),
    },
    Output: {"value_range": (-1.0, 1.0)},
    Plan.calibrate: {"tolerance": 0.02},
    calibrate: {"tolerance": 0.02, "seeds": None},
    calibrate_damping: {
        "scales": (2.0, 3.0, 5.0), "method": "rayleigh", "repeats": 4, "rectified": False,
        **dict.fromkeys(("x0", "seeds", "levels")),
    },
    Damped: {"decay": 2.0, "skip_below": 0.0, "model": "", "rectified": False},
    schedules.EDM: {"sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0, "spacing": "karras"},
    schedules.Flow: {
        "shift": 1.0, "grid_end": 0.0, "grid_start": 1.0, "extra_step": False, "terminal": None,
        "spacing": "linear", "highest": 1.0, "prior": "sigma",
    },
    schedules.VPLinear: {"beta_start": 1e-4, "beta_end": 0.02, **VP},
    schedules.ScaledLinear: {"beta_start": 0.00085, "beta_end": 0.012, **VP},
    schedules.Cosine: VP,
    schedules.VPSDE: {"beta_min": 0.1, "beta_max": 20.0, "grid_end": 1e-3, "prior": "unit"},
    schedules.VESDE: {"sigma_min": 0.01, "sigma_max": 50.0, "prior": "sigma"},
    schedules.karras: {"rho": 7.0},
    APG: {"momentum": -0.5, "radius": math.inf, "parallel": 0.0, "norm_dim": None},
    APGMix: {"scales": (3.5, 10.0), "first": Delta(), "then": APG(-0.5, 10.0, 0.0), "after": 6},
    FDG: {"scales": (10.0, 5.0), "parallel": 1.0},
    Mambo: {"scale": 10.0, "alpha": 8.0},
    PowerLaw: {"power": 0.9, "of": "score"},
    BetaCurve: {"a": 2.0, "b": 2.0, "gamma": 1.0},
    Gate: {"agreement": 0.991},
    Feedback: {"mix": 0.95, "largest": 10.0},
    Feedback.timed: {"begin": 0.5, "peak": 0.4, "mix": 0.95, "largest": 10.0},
    SEG: {"sigma": math.inf, "grid": None},
    ICG: {"conditions": None, "redraw": True},
    Clip: {"limit": 1.0, "keep_epsilon": False},
    Rescale: {"share": 0.7},
    ZeroInit: {"evaluations": 1},
    Linear: {"end": 1.0, "convention": "diffusers"},
    Cosine: {"power": 1.0, "convention": "diffusers"},
    FD: {"rho": None},
    FDBatched: {"rho": None},
    DiagonalBatched: {"rho": None, "probes": 1},
    Diagonal: {"memory_budget": None, "probes": 1},
    VJP: {"memory_budget": None},
    JVP: {"along": "lag", "apart": False},
    DiagonalJVP: {"probes": 1},
    Unconditional: {"null_cond": None},
    BadModel: {"cond": None},
    Classifier: {"labels": None, "on_clean_scale": False},
}  # fmt: skip
POSITIONAL = {  # every other parameter is given by its name
    schedules.EDM: ("sigma_min", "sigma_max", "rho"),
    schedules.Flow: ("shift",),
    schedules.VPLinear: ("beta_start", "beta_end", "train_steps"),
    schedules.ScaledLinear: ("beta_start", "beta_end", "train_steps"),
    schedules.Cosine: ("train_steps",),
    schedules.Betas: ("values",),
    schedules.VPSDE: ("beta_min", "beta_max"),
    schedules.VESDE: ("sigma_min", "sigma_max"),
}
OPTIONS = {
    "ddpm": {"variance": "small"},
    "ddim": {"eta": 0.0},
    "pndm": {"skip_prk": False},
    "heun": {"s_churn": 0.0, "s_tmin": 0.0, "s_tmax": math.inf, "s_noise": 1.0},
    "dpmpp_2m": {"lower_order_final": True, "euler_at_final": False},
}


@pytest.mark.parametrize("kind", DEFAULTS, ids=lambda kind: kind.__name__)
def test_defaults_are_the_published_ones(kind: Any) -> None:
    given = {n: p.default for n, p in inspect.signature(kind).parameters.items()}
    for name, value in DEFAULTS[kind].items():
        assert given[name] == value and type(given[name]) is type(value), name


@pytest.mark.parametrize("kind", POSITIONAL, ids=lambda kind: kind.__name__)
def test_the_grid_of_a_schedule_is_told_by_name(kind: Any) -> None:
    told = inspect.signature(kind).parameters.values()
    assert tuple(p.name for p in told if p.kind is not p.KEYWORD_ONLY) == POSITIONAL[kind]


@pytest.mark.parametrize("name", OPTIONS)
def test_solver_options_start_from_their_defaults(name: str) -> None:
    assert SOLVERS[name].checked({}) == OPTIONS[name]


def test_sample_is_a_call_of_an_engine_with_every_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    own, engines = (inspect.signature(f).parameters for f in (reg_engine.sample, Engine))
    choices = [name for name in engines if name != "model"]
    assert [own[name].default for name in choices] == [engines[name].default for name in choices]
    given: dict[str, Any] = {name: object() for name in choices}
    made: list[object] = []

    class Spy:
        def __init__(self, model: str, **choices: object) -> None:
            made.append((model, choices))

        def sample(self, *call: object) -> tuple[object, ...]:
            return call

    monkeypatch.setattr("reg_engine.engine.Engine", Spy)
    call: dict[str, Any] = {"seeds": "seeds", "noise": "noise", "callback": "callback"}
    assert reg_engine.sample("m", "cond", **call, **given) == ("cond", *call)
    assert made == [("m", given)]


def test_a_guidance_is_cfg_of_scale_two_until_told() -> None:
    assert Guidance() == Guidance(Constant(2.0), Unconditional(), "auto", Delta(), ())


def test_names_and_orders() -> None:
    assert MODES == ("cond", "cfg", "reg")
    assert all(SOLVERS[name].name == name for name in SOLVERS)
    orders = {name: SOLVERS[name].order for name in OPTIONS} | {
        name: SOLVERS[name].order for name in ("euler", "flow_euler", "flow_heun")
    }
    assert orders == {
        "ddpm": 1, "ddim": 1, "pndm": 2, "heun": 2, "dpmpp_2m": 2, "euler": 1, "flow_euler": 1,
        "flow_heun": 2,
    }  # fmt: skip
    stochastic = {name for name, solver in SOLVERS.items() if solver.stochastic}
    assert stochastic == {"ddpm", "euler_ancestral", "dpmpp_2m_sde"}
    assert {name for name, solver in SOLVERS.items() if solver.flow_only} == {
        "flow_euler", "flow_heun",
    }  # fmt: skip
    assert all(kind().name == name for name, kind in RECTIFIERS.items())


def test_figures_start_at_nothing_and_show_what_is_public() -> None:
    stats = Stats()
    assert stats.as_dict() == {
        "seconds": 0.0, "samples": 0, "nfe": 0.0, "checks": 0, "backward": 0.0, "peak_memory": None,
        "modes": {}, "estimator": "none", "reason": "", "fallbacks": {}, "solver": "",
        "backend": "",
        "capture": stats.capture, "postprocess_nfe": 0.0, "postprocess_seconds": 0.0,
    }  # fmt: skip
    assert "_" not in repr(stats).replace("peak_memory", "").replace("postprocess_", "")
    stats.begin(torch.device("cpu"))
    stats.finish_batch(4, 0.5, torch.device("cpu"))
    assert (stats.nfe, stats.backward, stats.seconds, stats.samples) == (0.0, 0.0, 0.5, 4)
