"""Diffusion transformers: DiT (Peebles & Xie 2023, arXiv 2212.09748) and SiT (Ma et al. 2024, arXiv
2401.08740), with the tensor names and shapes of their released weights."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, choice
from ..values import as_int, check_sizes

__all__ = ["SIZES", "DiT", "SiT", "sizes_of"]

# Table 1 of DiT: blocks, width, heads; "XL/2" is XL with patches of 2 x 2.
SIZES = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}
PATCHES = (2, 4, 8)
FREQUENCIES = 256  # of the time's embedding, sines and cosines together
EPS = 1e-6


def sizes_of(name: str) -> dict[str, int]:
    """The arguments that a published name stands for: "XL/2" -> blocks, width, heads, patch.

    Raises:
        InputError: no size of SIZES, or no patch of 2, 4 or 8.
    """
    size, _, patch = name.partition("/")
    known = [f"{size}/{patch}" for size in SIZES for patch in PATCHES]
    choice("name", name, known)
    blocks, width, heads = SIZES[size]
    return {"blocks": blocks, "width": width, "heads": heads, "patch": int(patch)}


class DiT(nn.Module):
    """net(x, t, labels): a transformer over patches, its blocks modulated by time and label.

    Args:
        image_channels: of a sample: 4 of a latent, 3 of an image.
        size: height and width of a sample, a multiple of `patch`: 32 for images of 256 through a
            VAE of factor 8, 64 for 512.
        patch: height and width of a patch.
        width, blocks, heads: of the transformer; `width` a multiple of 4 and of `heads`.
        num_labels: rows of the label table: the classes and, last, the null label.
        outputs: channels that are returned, `image_channels` or twice as many: then the second half
            is a learned variance (Denoiser(learned_variance=True)).

    Raises:
        InputError: sizes below 1 or that do not divide.
    """

    def __init__(
        self,
        image_channels: int = 4,
        size: int = 32,
        patch: int = 2,
        width: int = 1152,
        blocks: int = 28,
        heads: int = 16,
        num_labels: int = 1001,
        outputs: int = 8,
    ) -> None:
        super().__init__()
        check_sizes(image_channels=image_channels, size=size, patch=patch, width=width)
        check_sizes(blocks=blocks, heads=heads, num_labels=num_labels)
        if width % heads or width % 4:
            remedy = "Give a multiple of 4 and of heads"
            raise InputError("width", f"is {width} for {heads} heads", remedy)
        if size % patch:
            raise InputError("size", f"is {size} for patches of {patch}", "Give a multiple")
        if as_int("outputs", outputs) not in (image_channels, 2 * image_channels):
            remedy = f"Give {image_channels}, or {2 * image_channels} with a learned variance"
            raise InputError("outputs", f"is {outputs} for {image_channels} channels", remedy)
        self.arguments: dict[str, Any] = {
            "image_channels": image_channels,
            "size": size,
            "patch": patch,
            "width": width,
            "blocks": blocks,
            "heads": heads,
            "num_labels": num_labels,
            "outputs": outputs,
        }
        self.channels, self.patch, self.outputs = image_channels, patch, outputs
        self.x_embedder = _named(proj=nn.Conv2d(image_channels, width, patch, patch))
        self.t_embedder = _named(
            mlp=nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        )
        self.y_embedder = _named(embedding_table=nn.Embedding(num_labels, width))
        places = _positions(width, size // patch)[None]
        self.pos_embed = nn.Parameter(places, requires_grad=False)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(blocks))
        self.final_layer = _named(
            linear=nn.Linear(width, patch * patch * outputs), adaLN_modulation=_modulation(width, 2)
        )

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """What the network predicts.

        Args:
            x: (B, image_channels, size, size).
            t: (B,) the time it is told, as a float.
            cond: (B,) LongTensor of labels in [0, num_labels).

        Returns:
            (B, outputs, size, size) in the dtype of x.
        """
        tokens = self.x_embedder.proj(x).flatten(2).transpose(1, 2) + self.pos_embed
        told = self.t_embedder.mlp(_waves(t).to(x.dtype)) + self.y_embedder.embedding_table(cond)
        for block in self.blocks:
            tokens = block(tokens, told)
        shift, scale = self.final_layer.adaLN_modulation(told)[:, None].chunk(2, -1)
        return self._image(self.final_layer.linear(_modulated(tokens, shift, scale)), x)

    def _image(self, tokens: Tensor, x: Tensor) -> Tensor:
        """Tokens (B, N, patch^2 outputs) in their places."""
        side, patch = x.shape[-1] // self.patch, self.patch
        patches = tokens.unflatten(2, (patch, patch, self.outputs)).unflatten(1, (side, side))
        return patches.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


class SiT(DiT):
    """The same trunk as a flow: net(x, t, labels) -> eps - x_0 on x_t = (1 - t) x_0 + t eps.

    The release has noise at t = 0, data at t = 1 and predicts their difference, x_0 - eps; the
    second half of its channels is not used.

    Args and errors: as for DiT.
    """

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """eps - x_0, (B, image_channels, size, size), t (B,) in [0, 1]; see DiT.forward."""
        return -super().forward(x, 1 - t, cond)[:, : self.channels]


class _Block(nn.Module):
    """Self-attention and a feed-forward layer, each shifted, scaled and gated (DiT, adaLN-Zero)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attn = _named(qkv=nn.Linear(width, 3 * width), proj=nn.Linear(width, width))
        self.mlp = _named(fc1=nn.Linear(width, 4 * width), fc2=nn.Linear(4 * width, width))
        self.adaLN_modulation = _modulation(width, 6)

    def forward(self, tokens: Tensor, told: Tensor) -> Tensor:
        modulation = self.adaLN_modulation(told)[:, None].chunk(6, -1)
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = modulation
        tokens = tokens + gate * self._attention(_modulated(tokens, shift, scale))
        hidden = self.mlp.fc1(_modulated(tokens, shift_mlp, scale_mlp))
        return tokens + gate_mlp * self.mlp.fc2(F.gelu(hidden, approximate="tanh"))

    def _attention(self, tokens: Tensor) -> Tensor:
        heads = self.attn.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*heads.unbind(0))
        joined: Tensor = self.attn.proj(mixed.transpose(1, 2).flatten(2))
        return joined


def _named(**modules: nn.Module) -> Any:
    """A module that only gives its parts their published names."""
    parts = nn.Module()
    for name, module in modules.items():
        parts.add_module(name, module)
    return parts


def _modulation(width: int, count: int) -> nn.Sequential:
    """`count` shifts, scales or gates from the embedding; zero at first, as in adaLN-Zero."""
    linear = nn.Linear(width, count * width)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.SiLU(), linear)


def _modulated(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(tokens, tokens.shape[-1:], eps=EPS) * (1 + scale) + shift


def _waves(t: Tensor) -> Tensor:
    """[cos, sin] of t at periods of 2 pi to 2 pi 10^4, (B, FREQUENCIES) in at least float32."""
    half = FREQUENCIES // 2
    exponents = torch.arange(half, dtype=torch.float32, device=t.device) / half
    angles = t[:, None] * torch.exp(-math.log(10_000.0) * exponents)
    return torch.cat([angles.cos(), angles.sin()], -1)


def _positions(width: int, side: int) -> Tensor:
    """Fixed embedding of the places of side^2 patches, (side^2, width): [sin, cos] of the column,
    then of the row."""
    rates = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * rates
    line = torch.cat([angles.sin(), angles.cos()], 1)
    columns = line.expand(side, side, -1)
    return torch.cat([columns, columns.transpose(0, 1)], -1).flatten(0, 1).float()
