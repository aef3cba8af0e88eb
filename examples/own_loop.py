"""A sampler of one's own: `Guide` gives the guided estimate, the loop is yours."""

from itertools import pairwise

import torch

import reg_engine
from reg_engine import Guide, schedules

model = reg_engine.load_model("mnist")
labels = torch.arange(10)
guide = Guide(model, labels, scale=4.0, schedule=schedules.EDM())  # x = x_0 + sigma noise
sigmas = [*torch.logspace(1.9, -2.7, 24).tolist(), 0.0]
x = sigmas[0] * torch.randn(10, 1, 28, 28, generator=torch.Generator().manual_seed(0))
for sigma, then in pairwise(sigmas):
    x = x + (then - sigma) * (x - guide(x, sigma)) / sigma  # Euler
print(guide.stats)
torch.save(x, "digits.pt")
