"""SDXL: a damping in the place of a fixed scale, and intervals, in the pipeline's own call."""

import torch
from diffusers import StableDiffusionXLPipeline

from reg_engine import Interval
from reg_engine.integrations.diffusers import reg

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0")
pipe.to("cuda" if torch.cuda.is_available() else "cpu")
prompt = "an astronaut riding a horse"

# Guidance where the noise level sigma/alpha is between 0.3 and 6; the reference rests elsewhere.
with reg(pipe, scale=Interval(6.0, lo=0.3, hi=6.0), rectify="fd_batched") as rectified:
    pipe(prompt, num_inference_steps=30).images[0].save("sdxl.png")
print(rectified.stats)
