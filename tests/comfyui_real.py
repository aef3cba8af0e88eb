"""ComfyUI itself in the place of its stand-in: REG_COMFYUI=/path/to/ComfyUI, where it is installed.

States are float32 there, and models are loaded and moved by ComfyUI's own memory management.
"""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import torch
from comfyui_peer import TABLE
from torch import Tensor, nn

REAL = os.environ["REG_COMFYUI"]
sys.path.append(REAL)
_ARGV, sys.argv = sys.argv, ["comfyui", "--cpu"]  # which it reads when it is imported
try:
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.latent_formats
    import comfy.model_base
    import comfy.model_patcher
    import comfy.samplers
finally:
    sys.argv = _ARGV

KINDS = {"eps": "EPS", "flow": "FLOW", "image": "IMG_TO_IMG"}
calc_cond_batch = comfy.samplers.calc_cond_batch
Told = comfy.conds.CONDRegular

__all__ = ["TABLE", "Control", "Guider", "Model", "Patcher", "Told", "calc_cond_batch"]


def Model(net: nn.Module, kind: str) -> Any:
    dtype = next(net.parameters()).dtype
    config = SimpleNamespace(
        unet_config={"dtype": dtype},
        latent_format=comfy.latent_formats.LatentFormat(),
        manual_cast_dtype=None,
        custom_operations=object(),
        sampling_settings={},
        memory_usage_factor=1.0,
        optimizations={},
    )
    kinds = comfy.model_base.ModelType
    model = Counted(config, kinds[KINDS[kind]], torch.device("cpu"), lambda **_: net)
    if kind == "eps":
        model.model_sampling.set_sigmas(TABLE.clone())
    model.calls = []
    return model


class Counted(comfy.model_base.BaseModel):
    def apply_model(self, x: Tensor, t: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        sides = kwargs["transformer_options"]["cond_or_uncond"]
        self.calls.append((len(x) // len(sides), list(sides)))
        return super().apply_model(x, t, *args, **kwargs)

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        return {**super().extra_conds(**kwargs), **kwargs.get("told", {})}


def Patcher(model: Any) -> Any:
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, cpu, cpu)


class Guider(comfy.samplers.CFGGuider):
    def __init__(self, patcher: Any, positive: Any, negative: Any, cfg: float) -> None:
        super().__init__(patcher)
        given = {"positive": positive, "negative": negative}
        self.inner_set_conds({k: v for k, v in given.items() if v is not None})
        self.set_cfg(cfg)

    def sample(self, noise: Tensor, latent: Tensor, sampler: Any, sigmas: Tensor) -> Tensor:
        return super().sample(noise, latent, sampler, sigmas, seed=0, disable_pbar=True)


class Control:
    """As a ControlNet: a network of its own adds to the middle of the guided one."""

    extra_hooks: Any = None
    previous_controlnet: Any = None

    def __init__(self, net: nn.Module) -> None:
        self.patcher = Patcher(net)

    def get_models(self) -> list[Any]:
        return [self.patcher]

    def get_extra_hooks(self) -> list[Any]:
        return []

    def inference_memory_requirements(self, dtype: torch.dtype) -> int:
        return 0

    def pre_run(self, *_: Any) -> None: ...

    def cleanup(self) -> None: ...

    def get_control(self, x: Tensor, *_: Any) -> dict[str, Any]:
        return {"middle": [self.patcher.model(x)]}
