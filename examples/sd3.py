"""Stable Diffusion 3: a flow model, with Heun's solver instead of the scheduler's Euler."""

import torch
from diffusers import StableDiffusion3Pipeline

from reg_engine.integrations.diffusers import sample

pipe = StableDiffusion3Pipeline.from_pretrained(
    "stabilityai/stable-diffusion-3-medium-diffusers", torch_dtype=torch.bfloat16
)
pipe.to("cuda" if torch.cuda.is_available() else "cpu")
out = sample(pipe, "a sign that says REG", scale=5.0, solver="flow_heun", steps=14)
out.pil[0].save("sd3.png")
print(out.stats)
