"""EDM2 said twice more: its published names and shapes by hand, and the U-Net in plain torch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reg_engine.models.edm2 import EDM2

__all__ = ["SMALL", "drawn", "plain", "published", "small"]

# Block, inputs and outputs in units of the first level's channels, "a" where it attends. A
# decoder's inputs are what comes from below plus what the encoder left, in turn.
BLOCKS = """
enc.64x64_block0 1   1
enc.64x64_block1 1   1
enc.64x64_block2 1   1
enc.32x32_down   1   1
enc.32x32_block0 1   2
enc.32x32_block1 2   2
enc.32x32_block2 2   2
enc.16x16_down   2   2
enc.16x16_block0 2   3 a
enc.16x16_block1 3   3 a
enc.16x16_block2 3   3 a
enc.8x8_down     3   3
enc.8x8_block0   3   4 a
enc.8x8_block1   4   4 a
enc.8x8_block2   4   4 a
dec.8x8_in0      4   4 a
dec.8x8_in1      4   4
dec.8x8_block0   4+4 4 a
dec.8x8_block1   4+4 4 a
dec.8x8_block2   4+4 4 a
dec.8x8_block3   4+3 4 a
dec.16x16_up     4   4
dec.16x16_block0 4+3 3 a
dec.16x16_block1 3+3 3 a
dec.16x16_block2 3+3 3 a
dec.16x16_block3 3+2 3 a
dec.32x32_up     3   3
dec.32x32_block0 3+2 2
dec.32x32_block1 2+2 2
dec.32x32_block2 2+2 2
dec.32x32_block3 2+1 2
dec.64x64_up     2   2
dec.64x64_block0 2+1 1
dec.64x64_block1 1+1 1
dec.64x64_block2 1+1 1
dec.64x64_block3 1+1 1
"""


def published(channels: int, image: int, labels: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published U-Net for 64x64 samples.

    Args:
        channels: of the first level. image: of a sample. labels: classes, 0 = none.
    """
    c, e = channels, 4 * channels
    shapes: dict[str, tuple[int, ...]] = {
        "out_gain": (),
        "emb_fourier.freqs": (c,),
        "emb_fourier.phases": (c,),
        "emb_noise.weight": (e, c),
        "enc.64x64_conv.weight": (c, image + 1, 3, 3),
        "out_conv.weight": (image, c, 3, 3),
    }
    if labels:
        shapes["emb_label.weight"] = (e, labels)
    for line in BLOCKS.strip().splitlines():
        name, inputs, outputs, *attends = line.split()
        n, m = c * sum(map(int, inputs.split("+"))), c * int(outputs)
        shapes[f"{name}.emb_gain"] = ()
        shapes[f"{name}.conv_res0.weight"] = (m, m if name.startswith("enc") else n, 3, 3)
        shapes[f"{name}.emb_linear.weight"] = (m, e)
        shapes[f"{name}.conv_res1.weight"] = (m, m, 3, 3)
        if n != m:
            shapes[f"{name}.conv_skip.weight"] = (m, n, 1, 1)
        if attends:
            shapes[f"{name}.attn_qkv.weight"] = (3 * m, m, 1, 1)
            shapes[f"{name}.attn_proj.weight"] = (m, m, 1, 1)
    return shapes


SMALL = {
    "image_channels": 3,
    "size": 8,
    "channels": 8,
    "multipliers": [1, 2],
    "blocks": 1,
    "attention": [4],
    "head_width": 4,
    "num_labels": 6,
}


def drawn(net: nn.Module, seed: int = 0) -> nn.Module:
    """With weights of any magnitude, and gains that are not zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in net.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            value.copy_(0.7 + 0.2 * noise if name.endswith("gain") else 3 * noise)
    return net.eval()


def small(seed: int = 0, dtype: torch.dtype = torch.float64, **changes: object) -> EDM2:
    """A network of two levels, without gradients of its weights."""
    torch.manual_seed(seed)
    net = drawn(EDM2(**{**SMALL, **changes}), seed).to(dtype)  # type: ignore[arg-type]
    net.requires_grad_(False)
    assert isinstance(net, EDM2)
    return net


def plain(net: EDM2, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
    """The U-Net as the paper has it, from its state dict and its arguments alone."""
    weights, known = net.state_dict(), net.arguments
    names = list(dict.fromkeys(".".join(name.split(".")[:2]) for name in weights))
    angles = torch.outer(t, weights["emb_fourier.freqs"]) + weights["emb_fourier.phases"]
    embedding = math.sqrt(2) * torch.cos(angles) @ _unit_norm(weights["emb_noise.weight"]).T
    if known["num_labels"]:
        assert cond is not None
        classes = known["num_labels"] - 1
        told = torch.zeros(len(x), classes, dtype=x.dtype)
        for row, label in enumerate(cond.tolist()):
            if label < classes:
                told[row, label] = math.sqrt(classes)
        label = told @ _unit_norm(weights["emb_label.weight"]).T
        embedding = (0.5 * embedding + 0.5 * label) / math.sqrt(0.5)
    embedding = _silu(embedding)
    h = torch.cat([x, torch.ones(len(x), 1, *x.shape[2:], dtype=x.dtype)], 1)
    stack: list[Tensor] = []
    for name in names:
        if name.endswith("_conv") and name.startswith("enc"):
            h = _conv(h, weights[f"{name}.weight"])
        elif name.startswith(("enc", "dec")):
            own = {k[len(name) + 1 :]: v for k, v in weights.items() if k.startswith(f"{name}.")}
            if name.startswith("dec") and "_block" in name:
                h = _joined(h, stack.pop())
            h = _block(h, embedding, own, name, known["head_width"])
        else:
            continue
        if name.startswith("enc"):
            stack.append(h)
    return weights["out_gain"] * _conv(h, weights["out_conv.weight"])


def _unit_norm(w: Tensor) -> Tensor:
    """Each output's weights over their norm; 1e-4 beside the root mean square."""
    rows = w.reshape(len(w), -1)
    count = rows.shape[1]
    rms = (rows.square().sum(1) / count).sqrt()
    return (rows / (rms + 1e-4)[:, None] / math.sqrt(count)).reshape(w.shape)


def _silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x) / 0.596


def _conv(x: Tensor, w: Tensor) -> Tensor:
    return F.conv2d(x, _unit_norm(w), padding="same")


def _pixels(x: Tensor, dim: int) -> Tensor:
    return x / (x.square().mean(dim, keepdim=True).sqrt() + 1e-4)


def _joined(a: Tensor, b: Tensor) -> Tensor:
    n, m = a.shape[1], b.shape[1]
    factor = math.sqrt((n + m) / 0.5)
    return factor * torch.cat([0.5 / math.sqrt(n) * a, 0.5 / math.sqrt(m) * b], 1)


def _block(x: Tensor, e: Tensor, w: dict[str, Tensor], name: str, head: int) -> Tensor:
    if name.endswith("_down"):
        b, c, height, width = x.shape
        x = x.reshape(b, c, height // 2, 2, width // 2, 2).mean((3, 5))
    if name.endswith("_up"):
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    if name.startswith("enc"):
        x = _conv(x, w["conv_skip.weight"]) if "conv_skip.weight" in w else x
        x = _pixels(x, 1)
    y = _conv(_silu(x), w["conv_res0.weight"])
    gain = w["emb_gain"] * e @ _unit_norm(w["emb_linear.weight"]).T + 1
    y = _conv(_silu(torch.einsum("bchw,bc->bchw", y, gain)), w["conv_res1.weight"])
    if name.startswith("dec") and "conv_skip.weight" in w:
        x = _conv(x, w["conv_skip.weight"])
    x = (0.7 * x + 0.3 * y) / math.sqrt(0.58)
    if "attn_qkv.weight" in w:
        b, c, height, width = x.shape
        qkv = _conv(x, w["attn_qkv.weight"]).reshape(b, c // head, head, 3, height * width)
        q, k, v = (_pixels(part, 2) for part in qkv.unbind(3))
        shares = torch.einsum("bndi,bndj->bnij", q, k).div(math.sqrt(head)).softmax(3)
        y = torch.einsum("bnij,bndj->bndi", shares, v).reshape(x.shape)
        x = (0.7 * x + 0.3 * _conv(y, w["attn_proj.weight"])) / math.sqrt(0.58)
    return x.clip(-256, 256)
