"""What a guided step of diffusers' models costs at their real size, counted without values.

`python tests/family_flops.py` prints the table of docs/pipelines.md: no weight is made, nothing is
computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import diffusers
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from reg_engine import Denoiser, denoiser_of, schedules
from reg_engine.guidance.directions import Delta
from reg_engine.guidance.references import Unconditional
from reg_engine.networks.counter import Counter
from reg_engine.networks.point import Point
from reg_engine.rectifiers import make
from reg_engine.solvers import table

DDIM = {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "clip_sample": False}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
ESTIMATORS = ("vjp", "jvp", "fd", "fd_batched")


def sd15() -> Denoiser:
    net = diffusers.UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    return denoiser_of(net, scheduler=DDIM, null_cond=torch.zeros(1, 77, 768))


def sdxl() -> Denoiser:
    net = diffusers.UNet2DConditionModel(
        sample_size=128,
        cross_attention_dim=2048,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    text, pooled = torch.zeros(1, 77, 2048), torch.zeros(1, 1280)
    null = {"encoder_hidden_states": text, "text_embeds": pooled, "time_ids": torch.zeros(1, 6)}
    return denoiser_of(net, scheduler=DDIM, null_cond=null)


def sd3_medium() -> Denoiser:
    net = diffusers.SD3Transformer2DModel(
        sample_size=128,
        in_channels=16,
        num_layers=24,
        attention_head_dim=64,
        num_attention_heads=24,
        caption_projection_dim=1536,
        pos_embed_max_size=192,
    )
    text, pooled = torch.zeros(1, 77 + 256, 4096), torch.zeros(1, 2048)
    null = {"encoder_hidden_states": text, "pooled_projections": pooled}
    return denoiser_of(net, scheduler=FLOW, null_cond=null)


def flux_dev() -> Denoiser:
    net = diffusers.FluxTransformer2DModel(guidance_embeds=True)
    text, pooled = torch.zeros(1, 512, 4096), torch.zeros(1, 768)
    null = {"encoder_hidden_states": text, "pooled_projections": pooled}
    return denoiser_of(net, scheduler=FLOW, null_cond=null, embedded_guidance=3.5)


MODELS: dict[str, Callable[[], Denoiser]] = {
    "Stable Diffusion 1.5, 512 x 512": sd15,
    "SDXL, 1024 x 1024": sdxl,
    "SD3 medium, 1024 x 1024": sd3_medium,
    "FLUX.1-dev, 1024 x 1024": flux_dev,
}


def counted(build: Callable[[], Denoiser]) -> tuple[int, dict[str, float], set[Any]]:
    """Parameters; FLOPs of a guided step of one sample, CFG's as "None"; shapes of all results."""
    with torch.device("meta"), _without_autocast():
        model = build()
        for module in model.modules:
            module.to("meta").requires_grad_(False)
        parameters = sum(p.numel() for module in model.modules for p in module.parameters())
        flops, shapes = {}, set()
        for name in ("None", *ESTIMATORS):
            point = _point(model)
            with FlopCounterMode(display=False) as counter:
                found = point.stack(point.x) if name == "None" else make(name)(point, Delta())
            flops[name] = float(counter.get_total_flops())
            shapes |= {tuple(tensor.shape) for tensor in found}
    return parameters, flops, shapes


@contextmanager
def _without_autocast() -> Iterator[None]:
    """PyTorch has no autocast for meta, not even to say that it is off."""
    off = mock.patch("torch.is_autocast_enabled", lambda *_: False)
    with off, mock.patch("torch.autocast", lambda *_, **__: nullcontext()):
        yield


def _point(model: Denoiser) -> Point:
    """In the middle of a run, where the previous delta is known and nobody looks at values."""
    solver = "flow_euler" if isinstance(model.schedule, schedules.Flow) else "ddim"
    row = table(solver, model.schedule, 10).rows[4]
    x = torch.zeros(1, *model.sample_shape)
    cond: Any = model.null_cond
    memory: dict[str, Tensor] = {"delta": torch.zeros_like(x)}
    return Point(x, row, 4, model, Unconditional(), cond, memory, Counter(), missed=torch.zeros(()))


def main() -> None:
    print("| model | parameters | CFG | " + " | ".join(ESTIMATORS) + " |")
    print("|---" * (3 + len(ESTIMATORS)) + "|")
    for name, build in MODELS.items():
        parameters, flops, _ = counted(build)
        ratios = (f"{flops[e] / flops['None']:.2f}" for e in ESTIMATORS)
        cells = [name, f"{parameters / 1e9:.2f}e9", f"{flops['None'] / 1e12:.2f}", *ratios]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
