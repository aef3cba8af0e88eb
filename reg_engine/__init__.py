"""Guided sampling from diffusion and flow models, with rectified gradient guidance (REG)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import engine, schedules
from .adapters import denoiser_of
from .calibration import Damping, calibrate, calibrate_damping
from .engine import Engine, sample
from .errors import (
    BackendError,
    CaptureError,
    EstimatorError,
    InputError,
    NumericalError,
    RegEngineError,
)
from .guidance import (
    APG,
    FDG,
    ICG,
    PAG,
    SEG,
    SLG,
    TAG,
    TCFG,
    APGMix,
    BadModel,
    BetaCurve,
    CFGPlusPlus,
    CFGZeroStar,
    Classifier,
    Clip,
    Constant,
    Cosine,
    Damped,
    Delta,
    Feedback,
    Gate,
    Guidance,
    GuidedChannels,
    Interval,
    Linear,
    Mambo,
    PowerLaw,
    Rescale,
    Term,
    Unconditional,
    ZeroInit,
)
from .guide import Guide
from .models import load_classifier, load_model
from .networks.attention_models import set_attention
from .networks.denoisers import Denoiser
from .plan import Plan
from .profiling import ranges
from .rectifiers import RECTIFIERS
from .solvers import SOLVERS, Gibbs
from .version import __version__ as __version__

if TYPE_CHECKING:
    from . import fidelity, oracles, postprocess

_LATE = ("fidelity", "oracles", "postprocess")  # imported when they are asked for

__all__ = [
    "APGMix",
    "BetaCurve",
    "FDG",
    "Feedback",
    "Gate",
    "ICG",
    "Mambo",
    "PAG",
    "PowerLaw",
    "SEG",
    "SLG",
    "TAG",
    "Guide",
    "ranges",
    "calibrate",
    "calibrate_damping",
    "ZeroInit",
    "Rescale",
    "Delta",
    "Clip",
    "CFGZeroStar",
    "TCFG",
    "APG",
    "RECTIFIERS",
    "SOLVERS",
    "BackendError",
    "BadModel",
    "CFGPlusPlus",
    "CaptureError",
    "Classifier",
    "Constant",
    "Cosine",
    "Damped",
    "Damping",
    "Denoiser",
    "Engine",
    "EstimatorError",
    "Gibbs",
    "Guidance",
    "GuidedChannels",
    "InputError",
    "Interval",
    "Linear",
    "NumericalError",
    "Plan",
    "RegEngineError",
    "Term",
    "Unconditional",
    "denoiser_of",
    "engine",
    "fidelity",
    "load_classifier",
    "load_model",
    "oracles",
    "postprocess",
    "sample",
    "schedules",
    "set_attention",
]


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE})
