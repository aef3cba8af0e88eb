"""Calibration: measure on a few samples, once, what guidance is worth at every noise level."""

from __future__ import annotations

from .damping import Damping, calibrate_damping
from .plan import calibrate

__all__ = ["Damping", "calibrate", "calibrate_damping"]
