"""Networks of several libraries with small random configurations, as forward mode meets them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reg_engine.models.edm2 import EDM2
from reg_engine.models.unet import UNet

__all__ = ["NETWORKS", "Case", "filled"]

ROWS = 4  # of conditioning: two samples, without and with a prompt
Call = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """A network, two samples, and `call(net, x, rows)`: its output with these rows of
    conditioning."""

    net: nn.Module
    x: Tensor
    call: Call


def filled(net: nn.Module) -> nn.Module:
    """With random weights everywhere, also where a network starts at zero."""
    for parameter in net.parameters():
        spread = 0.05 if parameter.dim() > 1 else 0.3
        nn.init.normal_(parameter, 0.0 if parameter.dim() > 1 else 0.5, spread)
    return net.eval().requires_grad_(False)


def diffusers() -> Any:
    return pytest.importorskip("diffusers")


def like(x: Tensor, *values: Tensor) -> list[Tensor]:
    """The conditioning in the dtype of the network's input."""
    return [v.to(x.dtype) if v.is_floating_point() else v for v in values]


LABELS = torch.tensor([3, 7, 0, 2])
TIMES = torch.tensor([17, 803, 450, 99])


def mnist() -> Case:
    net = UNet(1, (32, 64), (1, 1, 1, 1), heads=2, embedding=64, num_labels=11)
    t = torch.rand(ROWS)
    x = torch.randn(2, 1, 28, 28)
    return Case(net, x, lambda m, z, r: m(z, *like(z, t[r]), LABELS[r]))


def edm2() -> Case:
    net = EDM2(3, 16, 32, (1, 2, 3), 2, (8, 4), head_width=16, num_labels=8)
    t, labels = torch.rand(ROWS) - 0.5, torch.tensor([7, 7, 0, 2])
    x = torch.randn(2, 3, 16, 16)
    return Case(net, x, lambda m, z, r: m(z, *like(z, t[r]), labels[r]))


def dit() -> Case:
    net = diffusers().DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=10,
    )

    def call(m: nn.Module, z: Tensor, r: Tensor) -> Tensor:
        return m(z, timestep=TIMES[r], class_labels=LABELS[r]).sample[:, :4]

    return Case(net, torch.randn(2, 4, 8, 8), call)


def unet2d() -> Case:
    net = diffusers().UNet2DModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    )
    return Case(net, torch.randn(2, 3, 16, 16), lambda m, z, r: m(z, TIMES[r]).sample)


def conditional(large: bool) -> Case:
    added: dict[str, Any] = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 32,
        "use_linear_projection": True,
        "transformer_layers_per_block": (1, 2),
    }
    net = diffusers().UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        norm_num_groups=8,
        attention_head_dim=4,
        **(added if large else {}),
    )
    prompt, pooled, sizes = torch.randn(4, 7, 32), torch.randn(4, 32), torch.randn(4, 6)

    def call(m: nn.Module, z: Tensor, r: Tensor) -> Tensor:
        text, vector, ids = like(z, prompt[r], pooled[r], sizes[r])
        extra = {"text_embeds": vector, "time_ids": ids} if large else None
        return m(z, TIMES[r], encoder_hidden_states=text, added_cond_kwargs=extra).sample

    return Case(net, torch.randn(2, 4, 16, 16), call)


def pixart() -> Case:
    net = diffusers().PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        cross_attention_dim=32,
        caption_channels=24,
    )
    prompt, mask = torch.randn(4, 7, 24), torch.ones(4, 7)
    mask[:, 5:] = 0

    def call(m: nn.Module, z: Tensor, r: Tensor) -> Tensor:
        text, seen = like(z, prompt[r], mask[r])
        added = {"resolution": None, "aspect_ratio": None}
        options = {"encoder_attention_mask": seen, "added_cond_kwargs": added}
        return m(z, encoder_hidden_states=text, timestep=TIMES[r], **options).sample[:, :4]

    return Case(net, torch.randn(2, 4, 8, 8), call)


def sd3() -> Case:
    net = diffusers().SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        caption_projection_dim=32,
        pooled_projection_dim=20,
        out_channels=4,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    )
    prompt, pooled = torch.randn(4, 7, 24), torch.randn(4, 20)

    def call(m: nn.Module, z: Tensor, r: Tensor) -> Tensor:
        text, vector, t = like(z, prompt[r], pooled[r], TIMES[r].float())
        given = {"encoder_hidden_states": text, "pooled_projections": vector}
        return m(z, timestep=t, **given).sample

    return Case(net, torch.randn(2, 4, 8, 8), call)


def flux() -> Case:
    net = diffusers().FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        pooled_projection_dim=20,
        axes_dims_rope=(4, 6, 6),
    )
    prompt, pooled = torch.randn(4, 7, 24), torch.randn(4, 20)
    places, words = torch.rand(9, 3), torch.zeros(7, 3)

    def call(m: nn.Module, z: Tensor, r: Tensor) -> Tensor:
        text, vector, t = like(z, prompt[r], pooled[r], TIMES[r].float() / 1000)
        given = {"encoder_hidden_states": text, "pooled_projections": vector}
        img_ids, txt_ids = like(z, places, words)
        return m(z, timestep=t, img_ids=img_ids, txt_ids=txt_ids, **given).sample

    return Case(net, torch.randn(2, 9, 4), call)


def wan() -> Case:
    net = diffusers().WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=24,
        freq_dim=16,
        ffn_dim=48,
        num_layers=2,
        cross_attn_norm=True,
        rope_max_seq_len=32,
    )
    prompt = torch.randn(4, 7, 24)

    def call(m: nn.Module, z: Tensor, r: Tensor) -> Tensor:
        return m(z, timestep=TIMES[r], encoder_hidden_states=like(z, prompt[r])[0]).sample

    return Case(net, torch.randn(2, 4, 2, 8, 8), call)


def encoder(front: bool, causal: bool, first: bool) -> Case:
    layer = nn.TransformerEncoderLayer(
        32, 4, 64, batch_first=front, norm_first=first, activation="gelu" if front else "relu"
    )
    net = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    padded = torch.arange(9).expand(4, 9) >= torch.tensor([9, 7, 8, 5])[:, None]

    def call(m: nn.Module, z: Tensor, r: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(9, dtype=z.dtype) if causal else None
        ends = like(z, torch.zeros(4, 9).masked_fill(padded, -torch.inf)[r])[0]
        y = z if front else z.transpose(0, 1)
        out = m(y, mask=mask, src_key_padding_mask=ends if causal or front else None)
        return out if front else out.transpose(0, 1)

    return Case(net, torch.randn(2, 9, 32), call)


def of_bench(key: str) -> Case:
    from bench.cases import MODEL_CASES
    from bench.models import build

    case = next(case for case in MODEL_CASES if case.key == key)
    loaded = build(case, "tiny", torch.device("cpu"), torch.float32)
    cond = loaded.cond(4)

    def call(m: nn.Module, z: Tensor, r: Tensor) -> Tensor:
        if isinstance(cond, Tensor):
            own: Any = cond[r]
        else:
            own = {name: like(z, value[r])[0] for name, value in cond.items()}
        return m(z, *like(z, TIMES[r].float()), own)

    return Case(loaded.denoiser.net, torch.randn(2, *case.shape("tiny")), call)


NETWORKS: dict[str, Callable[[], Case]] = {
    "mnist": mnist,
    "edm2": edm2,
    "dit": dit,
    "unet2d": unet2d,
    "sd": lambda: conditional(False),
    "sdxl": lambda: conditional(True),
    "pixart": pixart,
    "sd3": sd3,
    "flux": flux,
    "wan": wan,
    "encoder": lambda: encoder(True, False, True),
    "causal encoder": lambda: encoder(True, True, False),
    "encoder, batch behind": lambda: encoder(False, False, False),
    "causal encoder, batch behind": lambda: encoder(False, True, True),
    "bench dit": lambda: of_bench("dit-xl-2"),
    "bench sd": lambda: of_bench("sd-1.4"),
    "bench sdxl": lambda: of_bench("sd-xl"),
}
