"""A k-diffusion sampler takes `model(x, sigma)`: Heun's method in its form, with REG inside."""

import torch
from torch import Tensor

import reg_engine
from reg_engine import Guide, schedules


def sample_heun(model, x: Tensor, sigmas: Tensor) -> Tensor:
    """As k_diffusion.sampling.sample_heun without churn: denoised = model(x, sigma)."""
    for i in range(len(sigmas) - 1):
        d = (x - model(x, sigmas[i])) / sigmas[i]
        ahead = x + d * (sigmas[i + 1] - sigmas[i])
        if sigmas[i + 1] > 0:
            d = (d + (ahead - model(ahead, sigmas[i + 1])) / sigmas[i + 1]) / 2
        x = x + d * (sigmas[i + 1] - sigmas[i])
    return x


labels = torch.arange(10)
guide = Guide(reg_engine.load_model("mnist"), labels, scale=4.0, schedule=schedules.EDM())
ramp = torch.linspace(0, 1, 18)
sigmas = (80 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7  # Karras, rho = 7
sigmas = torch.cat([sigmas, sigmas.new_zeros(1)])
noise = torch.randn(10, 1, 28, 28, generator=torch.Generator().manual_seed(0))
x = sample_heun(guide, 80 * noise, sigmas)
print(guide.stats)
torch.save(x, "digits_heun.pt")
