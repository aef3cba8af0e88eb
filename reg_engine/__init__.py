"""Guided sampling from diffusion and flow models, with rectified gradient guidance (REG)."""

from __future__ import annotations

from . import engine, fidelity, oracles, postprocess, schedules
from .attention_models import set_attention
from .denoisers import Denoiser
from .engine import Engine, sample
from .errors import (
    BackendError,
    CaptureError,
    EstimatorError,
    InputError,
    NumericalError,
    RegEngineError,
)
from .guidance import Guidance
from .models import load_classifier, load_model
from .plan import Plan
from .rectifiers import RECTIFIERS
from .references import BadModel, Classifier, Unconditional
from .solvers import SOLVERS
from .weights import CFGPlusPlus, Constant, Cosine, Interval, Linear

__version__ = "0.1.0"
__all__ = [
    "RECTIFIERS",
    "SOLVERS",
    "BackendError",
    "BadModel",
    "CFGPlusPlus",
    "CaptureError",
    "Classifier",
    "Constant",
    "Cosine",
    "Denoiser",
    "Engine",
    "EstimatorError",
    "Guidance",
    "InputError",
    "Interval",
    "Linear",
    "NumericalError",
    "Plan",
    "RegEngineError",
    "Unconditional",
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
