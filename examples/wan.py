"""Wan, text to video: asked one after the other, rectified all the same."""

import torch
from diffusers import WanPipeline
from diffusers.utils import export_to_gif

from reg_engine.integrations.diffusers import sample

pipe = WanPipeline.from_pretrained("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", torch_dtype=torch.bfloat16)
pipe.to("cuda" if torch.cuda.is_available() else "cpu")
out = sample(pipe, "a cat walks on grass", negative="static", scale=5.0, num_frames=33, steps=30)
export_to_gif(out.pil[0], "wan.gif")
print(out.stats)
