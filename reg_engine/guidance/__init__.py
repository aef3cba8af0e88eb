"""Guidance = weight x direction x rectifier: the values that compose it, and the point they see."""

from __future__ import annotations

from ..networks.point import Direction, Point, Reference
from .adjustments import TAG, Adjustment, Clip, GuidedChannels, Rescale, ZeroInit
from .damped import Damped
from .directions import APG, TCFG, APGMix, CFGZeroStar, Delta
from .feedback import Feedback
from .frequency import FDG
from .guidance import Guidance, Term
from .independent import ICG
from .perturbed import PAG, SEG, SLG
from .references import BadModel, Classifier, Unconditional
from .sample_weights import BetaCurve, Gate, Mambo, PowerLaw
from .weights import CFGPlusPlus, Constant, Cosine, Interval, Linear, SampleWeight, Weight

__all__ = [
    "APG",
    "APGMix",
    "Adjustment",
    "BadModel",
    "BetaCurve",
    "CFGPlusPlus",
    "CFGZeroStar",
    "Classifier",
    "Clip",
    "Constant",
    "Cosine",
    "Damped",
    "Delta",
    "Direction",
    "FDG",
    "Feedback",
    "Gate",
    "Guidance",
    "GuidedChannels",
    "ICG",
    "Interval",
    "Linear",
    "Mambo",
    "PAG",
    "Point",
    "PowerLaw",
    "Reference",
    "Rescale",
    "SEG",
    "SLG",
    "SampleWeight",
    "TAG",
    "TCFG",
    "Term",
    "Unconditional",
    "Weight",
    "ZeroInit",
]
