"""The families of reg_engine.adapters: a tiny pipeline each, its call, what its net is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import tiny_pipelines as tiny
import torch
from torch import Tensor

from reg_engine import Denoiser, Engine, denoiser_of, schedules
from reg_engine.adapters.packed import pack

PROMPTS, NEGATIVE = ["a cat", "two dogs on a hill"], ["blurred", ""]
SHORT = {"max_sequence_length": 24}
LABELS = [207, 360]


def _sd(pipe: Any) -> tuple[Any, Any]:
    text, none = pipe.encode_prompt(PROMPTS, "cpu", 1, True, NEGATIVE)
    return text, none


def _sdxl(pipe: Any) -> tuple[Any, Any]:
    text, none, pooled, pooled_none = pipe.encode_prompt(PROMPTS, negative_prompt=NEGATIVE)
    ids = torch.tensor([[16.0, 16.0, 0.0, 0.0, 16.0, 16.0]])
    names = "encoder_hidden_states", "text_embeds", "time_ids"
    told = (text, pooled, ids), (none, pooled_none, ids)
    return dict(zip(names, told[0], strict=True)), dict(zip(names, told[1], strict=True))


def _pixart(pipe: Any) -> tuple[Any, Any]:
    text, mask, none, none_mask = pipe.encode_prompt(
        PROMPTS, negative_prompt=NEGATIVE, max_sequence_length=24
    )
    names = "encoder_hidden_states", "encoder_attention_mask"
    told = (text, mask), (none, none_mask)
    return dict(zip(names, told[0], strict=True)), dict(zip(names, told[1], strict=True))


def _sized(pipe: Any) -> tuple[Any, Any]:
    size = {"resolution": torch.tensor([[16.0, 16.0]]), "aspect_ratio": torch.tensor([[1.0]])}
    cond, null = _pixart(pipe)
    return cond | size, null | size


def _pooled(text: Tensor, pooled: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": text, "pooled_projections": pooled}


def _sd3(pipe: Any) -> tuple[Any, Any]:
    negative = {f"negative_prompt{end}": NEGATIVE for end in ("", "_2", "_3")}
    text, none, pooled, pooled_none = pipe.encode_prompt(
        PROMPTS, PROMPTS, PROMPTS, **negative, **SHORT
    )
    return _pooled(text, pooled), _pooled(none, pooled_none)


def _flux(pipe: Any) -> tuple[Any, Any]:
    text, pooled, _ = pipe.encode_prompt(PROMPTS, PROMPTS, **SHORT)
    none, pooled_none, _ = pipe.encode_prompt(NEGATIVE, NEGATIVE, **SHORT)
    return _pooled(text, pooled), _pooled(none, pooled_none)


def _auraflow(pipe: Any) -> tuple[Any, Any]:
    text, _, none, _ = pipe.encode_prompt(PROMPTS, NEGATIVE, **SHORT)
    return text, none


def _wan(pipe: Any) -> tuple[Any, Any]:
    text, none = pipe.encode_prompt(PROMPTS, NEGATIVE, **SHORT)
    return text, none


@dataclass(frozen=True)
class Case:
    """A family: `told(pipe)` are cond and null_cond, `call` what its pipeline is called with."""

    build: Callable[[], Any]
    told: Callable[[Any], tuple[Any, Any]]
    shape: tuple[int, ...] = (4, 8, 8)
    call: dict[str, Any] = field(default_factory=lambda: dict(tiny.SIZE))
    options: dict[str, Any] = field(default_factory=dict)
    packs: bool = False

    def noise(self) -> Tensor:
        """Unit noise of two samples, unpacked."""
        return torch.randn(2, *self.shape, generator=torch.Generator().manual_seed(3))

    def latents(self, pipe: Any, scale: float, steps: int) -> Tensor:
        """Of the pipeline's own CFG from that noise, in the pipeline's own form."""
        name, noise = "true_cfg_scale" if self.packs else "guidance_scale", self.noise()
        out = pipe(
            PROMPTS,
            negative_prompt=NEGATIVE,
            latents=pack(noise) if self.packs else noise,
            output_type="latent",
            num_inference_steps=steps,
            **{name: scale},
            **self.call,
        )
        return out[0]

    def denoiser(self, pipe: Any) -> tuple[Denoiser, Any]:
        """Of the pipeline, and the conditioning of two samples."""
        cond, null = self.told(pipe)
        model = denoiser_of(pipe, sample_shape=self.shape, null_cond=null, **self.options)
        return model, cond


class _DiT(Case):
    """Its pipeline takes labels, draws its own noise, and decodes what it returns."""

    def latents(self, pipe: Any, scale: float, steps: int) -> Tensor:
        kept: list[Tensor] = []
        decode, scaling = pipe.vae.decode, pipe.vae.config.scaling_factor
        pipe.vae.decode = lambda z: (kept.append(z * scaling), decode(z))[1]
        generator = torch.Generator().manual_seed(3)
        try:
            pipe(LABELS, scale, generator, steps)
        finally:
            del pipe.vae.decode
        return kept[0]


PIXART = {**tiny.SIZE, "use_resolution_binning": False, "clean_caption": False, **SHORT}
FLUX = {**tiny.SIZE, **SHORT}
DISTILLED = {**FLUX, "guidance_scale": 2.5}
CASES = {
    "sd": Case(tiny.sd, _sd),
    "sd_v": Case(tiny.sd_v, _sd),
    "sdxl": Case(tiny.sdxl, _sdxl),
    "dit": _DiT(tiny.dit, lambda pipe: (LABELS, None)),
    "pixart_alpha": Case(tiny.pixart, _pixart, call=PIXART),
    "pixart_1024": Case(lambda: tiny.pixart(sample_size=128), _sized, call=PIXART),
    "pixart_sigma": Case(lambda: tiny.pixart(True), _pixart, call=PIXART),
    "sd3": Case(tiny.sd3, _sd3, call=FLUX),
    "flux": Case(tiny.flux, _flux, call=FLUX, packs=True),
    "flux_distilled": Case(
        lambda: tiny.flux(True),
        _flux,
        call=DISTILLED,
        options={"embedded_guidance": 2.5},
        packs=True,
    ),
    "auraflow": Case(tiny.auraflow, _auraflow, call=FLUX),
    "wan": Case(
        tiny.wan, _wan, (16, 3, 8, 8), {"height": 64, "width": 64, "num_frames": 9, **SHORT}
    ),
}


def engine(pipe: Any, model: Denoiser, steps: int, **choices: Any) -> Engine:
    """With the solver that the pipeline's scheduler is."""
    solver, options = schedules.solver_from_diffusers(pipe.scheduler)
    return Engine(
        model, solver=solver, solver_options=options, steps=steps, progress=False, **choices
    )


def differences(found: Tensor, wanted: Tensor) -> float:
    """The relative L2 distance."""
    return float((found - wanted).norm() / wanted.norm())
