"""Networks of other kinds as their libraries have them: video, cascades, decoders, language models
with a cache; products beside forward AD in float64, with no op without a rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from forward_ad import jvp as oracle
from forward_models import filled
from torch import Tensor

from reg_engine.forward import jvp

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

WIDE = torch.float64
TIMES = torch.tensor([17.0, 803.0], dtype=WIDE)
Made = tuple[Callable[..., Any], Tensor, dict[str, Tensor]]


def some(*shape: int) -> Tensor:
    return torch.randn(2, *shape, dtype=WIDE)


def net(kind: str, **config: Any) -> Any:
    return filled(getattr(diffusers, kind)(**config)).double()


def blocks(name: str, **config: Any) -> dict[str, Any]:
    down, up = (f"CrossAttn{way}Block{name}" for way in ("Down", "Up"))
    return {
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "down_block_types": (down, down.removeprefix("CrossAttn")),
        "up_block_types": (up.removeprefix("CrossAttn"), up),
        "cross_attention_dim": 32,
        **config,
    }


HEADS = {"num_attention_heads": 2, "num_layers": 1, "in_channels": 4, "out_channels": 4}


def unet_3d() -> Made:
    m = net("UNet3DConditionModel", **blocks("3D", norm_num_groups=8, attention_head_dim=8))
    return lambda z, t, e: m(z, t, e), some(4, 3, 8, 8), {"t": TIMES, "e": some(5, 32)}


def unet_video() -> Made:
    added = {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 24}
    config = blocks("SpatioTemporal", num_attention_heads=(2, 4), num_frames=3, **added)
    m = net("UNetSpatioTemporalConditionModel", **config)
    told = {"t": TIMES, "e": some(1, 32), "a": some(3)}
    return lambda z, t, e, a: m(z, t, e, a), some(3, 8, 8, 8), told


def free_u() -> Made:
    m = net("UNet2DConditionModel", **blocks("2D", norm_num_groups=8, attention_head_dim=4))
    m.enable_freeu(0.9, 0.2, 1.2, 1.4)
    return lambda z, t, e: m(z, t, e), some(4, 8, 8), {"t": TIMES, "e": some(5, 32)}


def cascade() -> Made:
    m = net(
        "StableCascadeUNet",
        in_channels=4,
        out_channels=4,
        conditioning_dim=32,
        timestep_ratio_embedding_dim=16,
        block_out_channels=(32, 32),
        num_attention_heads=(2, 2),
        down_num_layers_per_block=(1, 1),
        up_num_layers_per_block=(1, 1),
        clip_text_pooled_in_channels=16,
        switch_level=(False,),
    )
    return lambda z, t, p: m(z, t, p), some(4, 8, 8), {"t": TIMES / 1000, "p": some(1, 16)}


def hunyuan_video() -> Made:
    m = net(
        "HunyuanVideoTransformer3DModel",
        **HEADS,
        attention_head_dim=10,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=1,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
    )
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    told = {"t": TIMES, "e": some(6, 16), "mask": mask, "p": some(8), "g": TIMES}
    return lambda z, t, e, mask, p, g: m(z, t, e, mask, p, g), some(4, 1, 6, 6), told


def linear_attention() -> Made:
    own = {"attention_head_dim": 8, "cross_attention_head_dim": 8, "cross_attention_dim": 16}
    m = net(
        "SanaTransformer2DModel",
        **HEADS,
        **own,
        num_cross_attention_heads=2,
        caption_channels=8,
        sample_size=8,
        qk_norm="rms_norm_across_heads",
    )
    return lambda z, t, e: m(z, e, t), some(4, 8, 8), {"t": TIMES, "e": some(6, 8)}


def qwen_image() -> Made:
    config = HEADS | {"in_channels": 16, "attention_head_dim": 16, "axes_dims_rope": (8, 4, 4)}
    m = net("QwenImageTransformer2DModel", **config, joint_attention_dim=16)

    def call(z: Tensor, t: Tensor, e: Tensor, mask: Tensor) -> Any:
        return m(z, e, mask, t, img_shapes=[(1, 4, 4)] * len(z))

    told = {"t": TIMES / 1000, "e": some(7, 16), "mask": torch.tensor([[1] * 7, [1] * 5 + [0] * 2])}
    return call, some(16, 16), told


def decoder() -> Made:
    ways = {f"{a}_block_types": (f"{b}coderBlock2D",) * 2 for a, b in WAYS.items()}
    m = net("AutoencoderKL", block_out_channels=(32, 64), norm_num_groups=8, **ways)
    return m.decode, some(4, 8, 8), {}


WAYS = {"down": "DownEn", "up": "UpDe"}


def video_decoder() -> Made:
    sizes = {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 1], "num_res_blocks": 1}
    m = net("AutoencoderKLWan", **sizes, temperal_downsample=[True])
    return m.decode, some(4, 2, 4, 4), {}


def language() -> Made:
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=50, n_positions=16)
    m = filled(transformers.GPT2Model(config)).double()  # its cache of keys begins empty
    mask = torch.tensor([[1] * 6, [0] * 2 + [1] * 4])
    return lambda z, mask: m(inputs_embeds=z, attention_mask=mask), some(6, 32), {"mask": mask}


def encoder() -> Made:
    config = transformers.T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    m = filled(transformers.T5EncoderModel(config)).double()
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    return lambda z, mask: m(inputs_embeds=z, attention_mask=mask), some(6, 32), {"mask": mask}


ZOO = [unet_3d, unet_video, free_u, cascade, hunyuan_video, linear_attention, qwen_image]
ZOO += [decoder, video_decoder, language, encoder]


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("made", ZOO, ids=lambda made: made.__name__)
def test_products_and_values(made: Callable[[], Made]) -> None:
    torch.manual_seed(1)
    module, x, told = made()

    def call(z: Tensor, **own: Tensor) -> Tensor:
        return module(z, **own)[0]

    t = torch.randn_like(x)
    found = jvp(call, x, t, **told)
    assert found.fallbacks == {}
    with torch.no_grad():
        twice = call(torch.cat([x, x]), **{name: torch.cat([v, v]) for name, v in told.items()})
    assert torch.equal(found.value, twice[:2])
    wanted = oracle(lambda z: call(z, **told), x, t)[1]
    assert wanted.norm() > 1e-6 * t.norm()
    # rotations and root mean squares are float32 in some of them
    assert (found.tangent - wanted).norm() <= 1e-6 * wanted.norm()
