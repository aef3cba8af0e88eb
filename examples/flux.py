"""FLUX.1: REG of its true CFG. guidance_scale is the number that was distilled into it."""

import torch
from diffusers import FluxPipeline

from reg_engine.integrations.diffusers import reg

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.to("cuda" if torch.cuda.is_available() else "cpu")
with reg(pipe, rectify="alternate") as rectified:
    images = pipe(
        "a paper boat on a river",
        negative_prompt="photograph",
        true_cfg_scale=3.0,
        guidance_scale=1.0,  # not guided twice
        num_inference_steps=24,
    ).images
images[0].save("flux.png")
print(rectified.stats)
