"""Postprocessing: a rectified flow from generated samples to real ones near them.

After Zhao & Schwing, arXiv 2503.10638. `flow = train_postprocess(samples, real, folder, ...)`, then
`flow(samples, cond)` or `reg_engine.sample(..., postprocess=flow)`.
"""

from __future__ import annotations

from .features import classifier_features, dinov2_features
from .flow import Postprocess
from .neighbours import Neighbours
from .task import FlowTask, interpolate, pool
from .train import load_postprocess, save_postprocess, train_postprocess

__all__ = [
    "FlowTask",
    "Neighbours",
    "Postprocess",
    "classifier_features",
    "dinov2_features",
    "interpolate",
    "load_postprocess",
    "pool",
    "save_postprocess",
    "train_postprocess",
]
