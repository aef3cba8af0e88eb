"""Guidance = weight x direction x rectifier: the values that compose it, and the point they see."""

from __future__ import annotations

from ..networks.point import Direction, Point, Reference
from .adjustments import Adjustment, Clip, Rescale, ZeroInit
from .damped import Damped
from .directions import APG, TCFG, CFGZeroStar, Delta
from .guidance import Guidance, Term
from .references import BadModel, Classifier, Unconditional
from .weights import CFGPlusPlus, Constant, Cosine, Interval, Linear, SampleWeight, Weight

__all__ = [
    "APG",
    "Adjustment",
    "BadModel",
    "CFGPlusPlus",
    "CFGZeroStar",
    "Classifier",
    "Clip",
    "Constant",
    "Cosine",
    "Damped",
    "Delta",
    "Direction",
    "Guidance",
    "Interval",
    "Linear",
    "Point",
    "Reference",
    "Rescale",
    "SampleWeight",
    "TCFG",
    "Term",
    "Unconditional",
    "Weight",
    "ZeroInit",
]
