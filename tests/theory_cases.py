"""Two Gaussians in one dimension, for which every quantity of the theory is a closed form."""

from __future__ import annotations

import torch

from reg_engine.oracles import GaussianMixture

F64 = torch.float64
DEVIATION, CENTRE = 0.3, -0.7


def gaussians(ref_deviation: float = DEVIATION) -> GaussianMixture:
    """Class 0 is N(0, 0.3^2), the reference N(-0.7, ref_deviation^2)."""
    reference = GaussianMixture(torch.tensor([[CENTRE]], dtype=F64), ref_deviation)
    return GaussianMixture(torch.zeros(1, 1, dtype=F64), DEVIATION, reference=reference)
