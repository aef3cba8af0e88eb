"""The benchmarks' U-Nets against those of diffusers: the same weights, the same numbers; DiT's
operations. (tests/test_models_dit.py has its numbers.)"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.append(str(Path(__file__).resolve().parent.parent))  # last, as in test_bench.py

from bench.cases import MODEL_CASES, ModelCase  # noqa: E402
from bench.models import build, unet  # noqa: E402

META = torch.device("meta")
DIT = next(case for case in MODEL_CASES if case.name == "dit-xl-2-256")
UNETS = [c for c in MODEL_CASES if c.name in ("sd-1.4-512", "sd-2.1-768", "sd-xl-1024")]


def peer_unet(key: str, size: str) -> nn.Module:
    """As the repositories of Stable Diffusion configure it."""
    sizes = unet.sizes_of(key, size)
    down = ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in sizes.depths]
    up = ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(sizes.depths)]
    added = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }
    return pytest.importorskip("diffusers").UNet2DConditionModel(
        in_channels=4,
        out_channels=4,
        down_block_types=down,
        up_block_types=up,
        block_out_channels=sizes.widths,
        cross_attention_dim=sizes.text,
        attention_head_dim=sizes.heads,  # of these models the number of heads
        use_linear_projection=sizes.linear,
        transformer_layers_per_block=tuple(max(depth, 1) for depth in sizes.depths),
        layers_per_block=sizes.layers,
        **(added if sizes.added else {}),
    )


def pair(case: ModelCase, size: str, device: str) -> tuple[nn.Module, nn.Module, Any]:
    """Ours and diffusers' network with the same weights, and a call of both."""
    loaded = build(case, size, torch.device(device), torch.float32)
    ours, shape = loaded.denoiser.net, loaded.denoiser.sample_shape
    with torch.device(device):
        peer = peer_unet(case.key, size)
    if device != "meta":
        peer.load_state_dict(ours.state_dict(), strict=True)
    x, t = torch.randn(2, *shape, device=device), torch.tensor([17.0, 803.0], device=device)
    cond = loaded.cond(2)

    def calls() -> tuple[Tensor, Tensor]:
        added = {name: cond[name] for name in ("text_embeds", "time_ids") if name in cond}
        options = {"added_cond_kwargs": added or None, "return_dict": False}
        theirs = peer.eval()(x, t, cond["encoder_hidden_states"], **options)[0]
        return ours(x, t, cond), theirs

    return ours, peer, calls


@pytest.mark.parametrize("size", ["tiny", "shrunk"])
@pytest.mark.parametrize("case", UNETS, ids=lambda case: case.name)
def test_the_same_numbers_and_operations(case: ModelCase, size: str) -> None:
    ours, peer, calls = pair(case, size, "cpu")
    with torch.no_grad():
        a, b = calls()
        flops = []
        for net in (ours, peer):
            with FlopCounterMode(net, display=False) as counter:
                calls()
            flops.append(counter.get_flop_counts()[type(net).__name__])
    assert a.shape == b.shape
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert flops[0] == flops[1]


@pytest.mark.parametrize("case", UNETS, ids=lambda case: case.name)
def test_the_same_parameters_at_real_size(case: ModelCase) -> None:
    ours, peer, _ = pair(case, "real", "meta")
    shapes = [{name: p.shape for name, p in net.named_parameters()} for net in (ours, peer)]
    assert shapes[0] == shapes[1]


def test_dit_does_as_many_multiplications_as_its_paper_counts() -> None:
    """Peebles & Xie 2023, Tab. 4: 118.6 Gflops of DiT-XL/2 at 256, a multiplication and an addition
    being one."""
    loaded = build(DIT, "real", META, torch.bfloat16)
    x, t = torch.empty(1, 4, 32, 32, device=META), torch.ones(1, device=META)
    label = torch.zeros(1, dtype=torch.int64, device=META)
    with FlopCounterMode(display=False) as counter:
        loaded.denoiser.net(x.bfloat16(), t, label)
    assert counter.get_total_flops() / 2e9 == pytest.approx(118.6, rel=2e-3)
