"""DiT on ImageNet: classes in place of prompts, CFG and REG for the same seeds."""

import torch
from diffusers import DiTPipeline

from reg_engine.integrations.diffusers import sample

pipe = DiTPipeline.from_pretrained("facebook/DiT-XL-2-256")
pipe.to("cuda" if torch.cuda.is_available() else "cpu")
labels = [207, 360, 387, 974]  # golden retriever, otter, red panda, geyser
for rectify in (None, "vjp"):
    out = sample(pipe, labels, scale=4.0, rectify=rectify, steps=50, seeds=range(4))
    for label, picture in zip(labels, out.pil, strict=True):
        picture.save(f"dit_{rectify or 'cfg'}_{label}.png")
    print(rectify, out.stats)
