"""Stable Diffusion 1.5: REG in the pipeline's own call, and from the engine."""

import torch
from diffusers import StableDiffusionPipeline

from reg_engine.integrations.diffusers import reg, sample

pipe = StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5")
pipe.to("cuda" if torch.cuda.is_available() else "cpu")
prompts = ["a lighthouse in a storm", "a fox in the snow"]

with reg(pipe) as rectified:  # the pipeline's scheduler, LoRA and callbacks stay
    images = pipe(prompts, negative_prompt=["blurry"] * 2, num_inference_steps=25).images
print(rectified.stats)
images[0].save("sd15_own_call.png")

out = sample(pipe, prompts, negative="blurry", scale=7.5, steps=25, seeds=[0, 1])
out.pil[0].save("sd15_engine.png")
print(out.stats)
