"""Perturbed layers of networks of diffusers, against its hooks and guiders."""

from __future__ import annotations

import importlib
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from perturbed_cases import LABELS, QUIET, dit, filled, models, ref_of, state
from torch import Tensor, nn

import reg_engine
from reg_engine import (
    PAG,
    SEG,
    SLG,
    Denoiser,
    Guidance,
    Guide,
    InputError,
    Term,
    schedules,
)
from reg_engine.guidance.perturbed import layers_of


def sd3() -> tuple[Denoiser, nn.Module]:
    net: Any = models().SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=2, num_layers=3, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=6, caption_projection_dim=16,
        pooled_projection_dim=5, out_channels=2, pos_embed_max_size=8,
    )  # fmt: skip
    net = filled(net)

    def call(x: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
        return net(x, cond["text"], cond["pooled"], timestep=t).sample

    return Denoiser(call, "flow", schedules.Flow(), (2, 8, 8)), net


def text() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(2)
    return {
        "text": torch.randn(3, 5, 6, generator=g, dtype=torch.float64),
        "pooled": torch.randn(3, 5, generator=g, dtype=torch.float64),
    }


HOOKED = {
    "pag": (
        PAG((0, 2)),
        {"skip_attention": False, "skip_attention_scores": True, "skip_ff": False},
    ),
    "slg": (SLG((0, 2)), {}),
}


@pytest.mark.parametrize("kind", HOOKED)
def test_layers_are_changed_as_the_hooks_of_diffusers_do(kind: str) -> None:
    denoiser, net = dit()
    hooks = importlib.import_module("diffusers.hooks")
    x = state(denoiser)
    reference, config = HOOKED[kind]
    found = ref_of(denoiser, reference)
    with torch.no_grad():
        plain = denoiser(x, 1.0, LABELS)
    hooks.apply_layer_skip(net, hooks.LayerSkipConfig([0, 2], "transformer_blocks", **config))
    with torch.no_grad():
        wanted = denoiser(x, 1.0, LABELS)
    torch.testing.assert_close(found, wanted)
    assert float((found - plain).abs().max()) > 1e-4


def test_blocks_of_two_streams_hand_on_both() -> None:
    """Stable Diffusion 3 without its second block, and with an attention of values alone."""
    denoiser, net = sd3()
    x, cond = state(denoiser), text()

    def ref(reference: Any) -> Tensor:
        return Guide(denoiser, cond, guidance=Guidance(0.0, reference, None))(x, 0.5)

    skipped, perturbed = ref(SLG(1)), ref(PAG("transformer_blocks.1.attn"))
    blocks: Any = net.transformer_blocks
    attention = F.scaled_dot_product_attention
    calls: list[int] = []

    def values(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        calls.append(1)
        return v if len(calls) == 2 else attention(q, k, v, **options)

    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        plain = denoiser(x, 0.5, cond)
        patch.setattr(F, "scaled_dot_product_attention", values)
        torch.testing.assert_close(perturbed, denoiser(x, 0.5, cond))
        del blocks[1]
        torch.testing.assert_close(skipped, denoiser(x, 0.5, cond))
    for one in (skipped, perturbed):
        assert float((one - plain).abs().max()) > 1e-5


def test_queries_are_smoothed_as_the_hooks_of_diffusers_do() -> None:
    """Its two branches are the wrong way round: a finite sigma takes the mean, an infinite one the
    Gaussian of the size of the image."""
    denoiser, net = dit()
    utils = importlib.import_module("diffusers.hooks.smoothed_energy_guidance_utils")
    found = ref_of(denoiser, SEG((1,)))
    config = utils.SmoothedEnergyGuidanceConfig([1], "transformer_blocks")
    utils._apply_smoothed_energy_guidance_hook(net, config, 1.0)
    with torch.no_grad():
        wanted = denoiser(state(denoiser), 1.0, LABELS)
    torch.testing.assert_close(found, wanted)
    for tokens, sigma in ((16, 0.4), (27, 1.1), (49, 5.0), (64, 9.0)):
        query = torch.randn(2, tokens, 6, dtype=torch.float64)
        size = math.ceil(6 * sigma) + 1 - math.ceil(6 * sigma) % 2
        wanted = utils._gaussian_blur_2d(query.clone(), size, sigma, -1.0)
        # the kernel of diffusers is made in float32
        torch.testing.assert_close(SEG(0, sigma).blurred(query), wanted, rtol=1e-5, atol=1e-6)


def test_beside_cfg_it_is_the_guiders_sum() -> None:
    """diffusers: ref + scale (cond - ref) + s (cond - perturbed)."""
    guiders = pytest.importorskip("diffusers.guiders", reason="diffusers is a test peer")
    denoiser, _ = dit()
    x = state(denoiser)
    guider = guiders.PerturbedAttentionGuidance(4.0, 1.5, 0.0, 1.0, perturbed_guidance_layers=[1])
    guider.set_state(step=5, num_inference_steps=20, timestep=torch.tensor(500))
    with torch.no_grad():
        cond, ref = (denoiser(x, 1.0, y) for y in (LABELS, torch.full((3,), 3)))
    wanted = guider.forward(cond, ref, ref_of(denoiser, PAG(1))).pred
    terms = (Term(4.0, rectify=None), Term(2.5, PAG(1), None))
    guide = Guide(denoiser, LABELS, guidance=Guidance(terms=terms))
    torch.testing.assert_close(guide(x, 1.0), wanted)
    assert guide.stats.nfe == 3


def test_layers_are_found_by_the_end_of_their_name() -> None:
    denoiser, net = dit()
    found = layers_of(denoiser, ("2.attn1", 0))
    assert list(found) == ["2.attn1", "0"]
    assert found["2.attn1"] is net.transformer_blocks[2].attn1  # type: ignore[index, union-attr]
    assert found["0"] is net.transformer_blocks[0]  # type: ignore[index]


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ("attn1", "3 of the network's layers"),
        ("mid", "none of the network's layers"),
        (3, "has 3 blocks"),
    ],
)
def test_layers_that_are_not_there_are_named(layers: Any, says: str) -> None:
    denoiser, _ = dit()
    with pytest.raises(InputError, match=f"^layers: .*{says}"):
        reg_engine.sample(denoiser, LABELS, guidance=Guidance(2.0, PAG(layers), None), **QUIET)
