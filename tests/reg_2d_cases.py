"""The small set, its exact golden guidance and the points that the tests of reg-2d share."""

from __future__ import annotations

import torch
from torch import Tensor

from reg_engine.experiments.reg_2d.golden import grids_of
from reg_engine.experiments.reg_2d.models import SCHEDULE, STEPS, exact_model
from reg_engine.oracles import make_shape
from reg_engine.solvers import Row, table

F64 = torch.float64
SHAPE = make_shape("moons", 16)
GRIDS = grids_of(SHAPE)
CHAIN = table("ddpm", SCHEDULE, STEPS)
MODEL = exact_model(SHAPE)


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points_at(row: Row, count: int = 6) -> tuple[Tensor, Tensor]:
    x0, labels = SHAPE.sample(count, gen(1))
    noise = torch.randn(x0.shape, dtype=F64, generator=gen(2))
    return row.alpha * x0 + row.sigma * noise, labels
