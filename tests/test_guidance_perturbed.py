"""Perturbed layers against the network written out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import tiny
from perturbed_cases import LABELS, QUIET, filled, ours, ref_of, softmaxed, state
from rerun import Rerun
from torch import Tensor, nn

import reg_engine
from reg_engine import (
    PAG,
    SEG,
    SLG,
    Denoiser,
    Engine,
    EstimatorError,
    Guidance,
    InputError,
    Interval,
    schedules,
    set_attention,
)
from reg_engine.loop.graphs import Graphs


def by_hand(denoiser: Denoiser, change: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """E[x_0 | x] of the U-Net, whose attention is written out with another middle."""
    net: Any = denoiser.net
    layer = net.attend

    def attend(x: Tensor) -> Tensor:
        tokens = layer.norm(x).flatten(2).transpose(1, 2)
        heads = layer.qkv(tokens).unflatten(-1, (3, layer.heads, layer.width))
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        mixed = change(q, k, v).transpose(1, 2).flatten(2)
        return x + layer.out(mixed).transpose(1, 2).reshape(x.shape)

    before, layer.forward = layer.forward, attend
    try:
        with torch.no_grad():
            return denoiser(state(denoiser), 1.0, LABELS)
    finally:
        layer.forward = before


def blurred(q: Tensor, sigma: float) -> Tensor:
    """By convolution, 2 x 2 tokens reflected at the ends."""
    kernel = torch.tensor([math.exp(-0.5 * (o / sigma) ** 2) for o in (-1, 0, 1)]).double()
    kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
    planes = q.transpose(-1, -2).reshape(-1, 1, 2, 2)
    found = F.conv2d(F.pad(planes, (1, 1, 1, 1), "reflect"), kernel[None, None])
    return found.reshape(*q.shape[:-2], q.shape[-1], 4).transpose(-1, -2)


CHANGES: list[tuple[Any, Callable[..., Tensor]]] = [
    (PAG("attend"), lambda q, k, v: v),
    (SEG("attend"), lambda q, k, v: softmaxed(q.mean(-2, keepdim=True).expand_as(q), k, v)),
    (SEG("attend", 0.4), lambda q, k, v: softmaxed(blurred(q, 0.4), k, v)),
    (SEG("attend", 7.0, (2, 2)), lambda q, k, v: softmaxed(blurred(q, 7.0), k, v)),
]


@pytest.mark.parametrize(("reference", "change"), CHANGES, ids=lambda v: str(v)[:20])
@pytest.mark.parametrize("backend", ["auto", "math", "flash"])
def test_attention_is_the_network_written_out(
    reference: Any, change: Callable[..., Tensor], backend: str
) -> None:
    denoiser = ours()
    set_attention(denoiser, backend)
    wanted, plain = (by_hand(denoiser, one) for one in (change, softmaxed))
    torch.testing.assert_close(ref_of(denoiser, reference), wanted, rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(denoiser(state(denoiser), 1.0, LABELS), plain)
    assert float((wanted - plain).abs().max()) > 1e-3


def test_skipped_layers_hand_on_what_they_got() -> None:
    denoiser = ours()
    net: Any = denoiser.net
    found = ref_of(denoiser, SLG(("attend", "leave.1")))
    kept = net.leave.pop(1), net.attend
    net.attend = nn.Identity()
    with torch.no_grad():
        wanted = denoiser(state(denoiser), 1.0, LABELS)
    net.leave.append(kept[0])
    net.attend = kept[1]
    torch.testing.assert_close(found, wanted)
    numbered = ref_of(denoiser, SLG(1))  # leave is the longest list of blocks
    torch.testing.assert_close(numbered, ref_of(denoiser, SLG("leave.1")))
    assert float((numbered - found).abs().max()) > 1e-4


def test_a_grid_that_is_no_square() -> None:
    query = torch.randn(2, 3, 4 * 6 + 2, 5, dtype=torch.float64)
    found = SEG(0, 0.8, (4, 6)).blurred(query)
    assert torch.equal(found[:, :, 24:], query[:, :, 24:])
    image = query[:, :, :24].unflatten(-2, (4, 6))
    for one, other in ((found[:, :, :24].unflatten(-2, (4, 6)), image),):
        for flipped in (-3, -2):  # a reflection of the image is one of the result
            again = SEG(0, 0.8, (4, 6)).blurred(other.flip(flipped).flatten(-3, -2))
            torch.testing.assert_close(again.unflatten(-2, (4, 6)), one.flip(flipped))
        torch.testing.assert_close(one.mean((-3, -2)).shape, other.mean((-3, -2)).shape)
    flat = SEG(0, 0.8, (4, 6)).blurred(torch.ones(1, 1, 24, 1))
    torch.testing.assert_close(flat, torch.ones(1, 1, 24, 1))
    with pytest.raises(InputError, match="^grid"):
        SEG(0, 0.8, (9, 9)).blurred(query)


def test_grouped_queries_attend_to_the_value_of_their_group() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
            self.layer = self.Layer()

        class Layer(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                q = x.reshape(len(x), 4, 4, 2)
                k, v = q[:, :2], 3 * q[:, 1:3]
                cross = F.scaled_dot_product_attention(q, k[:, :, :3], v[:, :, :3], enable_gqa=True)
                own = F.scaled_dot_product_attention(q, k, v, None, 0.0, enable_gqa=True)
                return (own + 0.1 * cross).reshape(x.shape)

        def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            return self.weight * self.layer(x)

    denoiser = Denoiser(Net(), "sample", schedules.EDM(), (32,), 3, num_classes=3)
    q = state(denoiser).reshape(3, 4, 4, 2)
    v = 3 * q[:, 1:3].repeat_interleave(2, 1)
    k = q[:, :2].repeat_interleave(2, 1)
    wanted = v + 0.1 * softmaxed(q, k[:, :, :3], v[:, :, :3])
    found = ref_of(denoiser, PAG("layer")).reshape(3, 4, 4, 2)
    torch.testing.assert_close(found, wanted)


def test_a_transformer_of_torch_is_named_by_its_layers() -> None:
    """nn.TransformerEncoderLayer leaves its fused path; within it nothing would be called."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            kind = nn.TransformerEncoderLayer
            self.blocks = nn.ModuleList(kind(8, 2, 16, batch_first=True) for _ in range(2))

        def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x)
            return x

    net: Any = filled(Net())
    denoiser = Denoiser(net, "sample", schedules.EDM(), (5, 8), 3, num_classes=3)
    found = ref_of(denoiser, PAG(0))
    layer = net.blocks[0]
    with torch.no_grad():
        x = state(denoiser)
        own = F.linear(x, layer.self_attn.in_proj_weight[16:], layer.self_attn.in_proj_bias[16:])
        x = layer.norm1(x + layer.self_attn.out_proj(own))
        x = layer.norm2(x + layer.linear2(layer.linear1(x).relu()))
        torch.testing.assert_close(found, net.blocks[1](x))
    with pytest.raises(EstimatorError, match="self_attn.*not called"):
        ref_of(denoiser, PAG("blocks.0.self_attn"))


@pytest.mark.parametrize("rectify", [None, "vjp", "jvp", "fd_batched"])
def test_a_run_is_that_of_a_worse_network(rectify: str | None) -> None:
    """The same network with another middle, as BadModel: through every estimator."""
    denoiser, worse = ours(), ours()
    worse.net.attend.forward = lambda x: x  # type: ignore[union-attr]
    choices = {**QUIET, "seeds": [4, 5, 6], "solver": "heun"}
    runs = [
        reg_engine.sample(denoiser, LABELS, guidance=Guidance(3.0, reference, rectify), **choices)
        for reference in (SLG("attend"), reg_engine.BadModel(worse))
    ]
    torch.testing.assert_close(runs[0].samples, runs[1].samples, rtol=1e-6, atol=1e-6)
    assert runs[0].stats.nfe == runs[1].stats.nfe


@pytest.mark.parametrize("reference", [PAG("attend"), SEG("attend"), SLG("attend")])
def test_captured_rows_and_small_batches_are_the_eager_ones(reference: Any) -> None:
    guidance = Guidance(Interval(3.0, 0.1, 10.0), reference, None)
    eager = Engine(ours(), guidance=guidance, **QUIET).sample(LABELS)
    captured = Engine(ours(), guidance=guidance, **QUIET)
    captured._graphs = Graphs(Rerun(), always=True)
    small = Engine(ours(), guidance=guidance, batch_size=1, compile=True, **QUIET)
    torch.testing.assert_close(captured.sample(LABELS).samples, eager.samples)
    torch.testing.assert_close(small.sample(LABELS).samples, eager.samples)


@pytest.mark.parametrize("layers", [(), None, -1, True, 1.5, [None], object()])
@pytest.mark.parametrize("kind", [PAG, SEG, SLG])
def test_layers_of_no_kind_are_refused(kind: Any, layers: Any) -> None:
    with pytest.raises(InputError, match="^layers"):
        kind(layers)


def test_a_network_without_modules_has_no_layers() -> None:
    model = Denoiser(lambda x, t, cond: x, "sample", schedules.EDM(), (3,), 1, num_classes=1)
    for layer in ("attend", 0):
        with pytest.raises(InputError, match="^layers"):
            reg_engine.sample(model, [0], guidance=Guidance(2.0, SLG(layer), None), **QUIET)


def test_what_cannot_be_changed_is_an_error() -> None:
    with pytest.raises(EstimatorError, match="PAG found nothing to change in .'stem'"):
        ref_of(ours(), PAG("stem"))
    with pytest.raises(InputError, match="^layers: 'shrink' cannot be skipped"):
        ref_of(ours(), SLG("shrink"))
    unused = tiny()
    unused.net.spare = nn.Linear(2, 2)  # type: ignore[union-attr]
    with pytest.raises(EstimatorError, match="SLG found nothing to change in .'spare'"):
        guidance = Guidance(2.0, SLG("spare"), None)
        reg_engine.sample(unused, LABELS, guidance=guidance, progress=False)


@pytest.mark.parametrize(
    ("bad", "name"), [({"sigma": 0.0}, "sigma"), ({"grid": (2,)}, "grid"), ({"grid": 3}, "grid")]
)
def test_options_of_seg_are_checked(bad: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=f"^{name}"):
        SEG(0, **bad)
