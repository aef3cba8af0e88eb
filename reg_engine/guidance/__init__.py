"""Guidance = weight x direction x rectifier: the values that compose it, and the point they see."""

from __future__ import annotations

from ..networks.point import Point
from .adjustments import Clip, Rescale, ZeroInit
from .directions import APG, TCFG, CFGZeroStar, Delta
from .guidance import Guidance, Term
from .references import BadModel, Classifier, Unconditional
from .weights import CFGPlusPlus, Constant, Cosine, Interval, Linear

__all__ = [
    "APG",
    "TCFG",
    "BadModel",
    "CFGPlusPlus",
    "CFGZeroStar",
    "Classifier",
    "Clip",
    "Constant",
    "Cosine",
    "Delta",
    "Guidance",
    "Interval",
    "Linear",
    "Point",
    "Rescale",
    "Term",
    "Unconditional",
    "ZeroInit",
]
