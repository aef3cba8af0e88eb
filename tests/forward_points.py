"""Points of small images, and the product there beside differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from nets import flow_point
from torch import Tensor

from reg_engine import Denoiser, schedules
from reg_engine.networks.point import Point
from reg_engine.rectifiers.forward import product

SHAPE = (4, 4, 4)


def images(net: Callable[..., Tensor]) -> Point:
    """A point of images (4, 4, 4) in float64, at t = 1/2 of a flow."""
    denoiser = Denoiser(net, "sample", schedules.Flow(), SHAPE, 2, num_classes=2)
    x = torch.randn(3, *SHAPE, dtype=torch.float64)
    return replace(flow_point(3), x=x, denoiser=denoiser)


def error(net: Callable[..., Tensor]) -> float:
    """Of the dual product beside central differences, relative."""
    point = images(net)
    tangent, h = torch.randn_like(point.x), 1e-5
    with torch.no_grad():
        plus, minus = (point.cond_at(point.x + sign * h * tangent) for sign in (1, -1))
    wanted = point.alpha * (plus - minus) / (2 * h)
    return float((product(point, tangent)[1] - wanted).norm() / wanted.norm())
