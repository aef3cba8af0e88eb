"""The EDM2 U-Net (Karras et al. 2024, arXiv 2312.02696, config G, Fig. 21).

Names and shapes of the state dict are those of the published networks, without what is around them:
of a published `unet.enc.64x64_conv.weight` the `unet.` is gone, and so are `logvar_fourier` and
`logvar_linear`, which training alone asks. The preconditioning around the U-Net is
`Denoiser(net, "edm")`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..values import check_sizes
from .edm2_layers import Block, Fourier, Layer, join, silu, total

__all__ = ["EDM2"]

LABEL, SKIP = 0.5, 0.5  # shares of the label in the embedding, of the encoder in what is joined


class EDM2(nn.Module):
    """Magnitude-preserving U-Net with the call of `reg_engine.Denoiser`.

    A new network answers zero, as a published one does before its training. It computes in the
    dtype of x, its embedding in float32 at least; blocks clip at +-256, so that float16 holds.

    Args:
        image_channels: of the image, 3, or of latents, 4.
        size: side of the samples; its halves name the parameters.
        channels: of the first level: XS 128, S 192, M 256, L 320, XL 384, XXL 448.
        multipliers: of `channels`, a level each; the last level's is that of the embedding, too,
            if none is larger.
        blocks: residual blocks of a level, going down; one more going up.
        attention: sides at which blocks attend. The first block going up always does.
        head_width: channels of an attention head.
        num_labels: the classes and, last, the null label, which is told as zeros (1001 for
            ImageNet); 0 = the network was trained without labels and ignores `cond`.

    Raises:
        InputError: sizes below 1, or that do not divide.
    """

    def __init__(
        self,
        image_channels: int = 4,
        size: int = 64,
        channels: int = 192,
        multipliers: Sequence[int] = (1, 2, 3, 4),
        blocks: int = 3,
        attention: Sequence[int] = (16, 8),
        head_width: int = 64,
        num_labels: int = 1001,
    ) -> None:
        super().__init__()
        check_sizes(image_channels=image_channels, size=size, channels=channels, blocks=blocks)
        check_sizes(multipliers=multipliers, attention=attention, head_width=head_width)
        if type(num_labels) is not int or num_labels < 0 or num_labels == 1:
            raise InputError("num_labels", f"is {num_labels!r}", "Give 0, or a class and the null")
        widths = [channels * factor for factor in multipliers]
        _check(size, widths, attention, head_width)
        self.arguments: dict[str, Any] = {
            "image_channels": image_channels,
            "size": size,
            "channels": channels,
            "multipliers": list(multipliers),
            "blocks": blocks,
            "attention": list(attention),
            "head_width": head_width,
            "num_labels": num_labels,
        }
        self.num_labels = num_labels
        embedding = max(widths)
        self.out_gain = nn.Parameter(torch.empty(()))
        nn.init.zeros_(self.out_gain)
        self.emb_fourier = Fourier(widths[0])
        self.emb_noise = Layer(widths[0], embedding)
        self.emb_label = Layer(num_labels - 1, embedding) if num_labels else None
        heads = [head_width if size >> level in attention else 0 for level in range(len(widths))]
        self.enc, kept = _encoder(image_channels + 1, size, widths, heads, blocks, embedding)
        self.dec = _decoder(kept, size, widths, heads, blocks, embedding, head_width)
        self.out_conv = Layer(widths[0], image_channels, 3)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """Network output for one batch.

        Args:
            x: (B, image_channels, H, W), H and W multiples of 2^(levels - 1), of unit variance.
            t: (B,) c_noise = ln(sigma)/4 (Karras et al. 2022, Table 1).
            cond: (B,) LongTensor of labels in [0, num_labels); unused where num_labels is 0.

        Returns:
            (B, image_channels, H, W) in the dtype of x.
        """
        embedding = self._embedded(t, cond)
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        kept: list[Tensor] = []
        for part in self.enc.values():
            x = part(x, embedding) if isinstance(part, Block) else part(x)
            kept.append(x)
        for block in self.dec.values():
            x = block(join(x, kept.pop(), SKIP) if block.joins else x, embedding)
        output: Tensor = self.out_conv(x, self.out_gain)
        return output

    def _embedded(self, t: Tensor, cond: Tensor | None) -> Tensor:
        """(B, embedding), in float32 at least, of the noise level and the label."""
        embedding: Tensor = self.emb_noise(self.emb_fourier(t))
        if self.emb_label is not None:
            if cond is None:
                raise InputError(
                    "cond", "is None, the network has labels", f"Give 0 to {self.num_labels - 1}"
                )
            told = F.one_hot(cond, self.num_labels)[:, :-1].to(embedding.dtype)
            label = self.emb_label(told * math.sqrt(self.num_labels - 1))
            embedding = total(embedding, label, LABEL)
        return silu(embedding)

    def settle(self) -> EDM2:
        """Store all weights as they are used, in place, so that no call normalises them again.

        What the network answers stays the same. The state dict then has them at unit magnitude;
        weights that are read from it are normalised a second time, which changes them by 1e-4 of
        themselves at most: less than float16 rounds. `train()` and `load_state_dict` take it back;
        whatever else writes into the weights does so as they are used.
        """
        for module in self.modules():
            if isinstance(module, Layer):
                module.settle()
        return self


def _check(size: int, widths: list[int], attention: Sequence[int], head_width: int) -> None:
    if not widths or size % 2 ** (len(widths) - 1):
        raise InputError(
            "size", f"{size} cannot be halved {len(widths) - 1} times", "Give other multipliers"
        )
    attending = [w for level, w in enumerate(widths) if size >> level in attention]
    if any(width % head_width for width in [*attending, widths[-1]]):
        raise InputError(
            "channels",
            f"levels {widths} wide do not divide into heads {head_width} wide",
            "Give multiples of the head's width",
        )


def _encoder(
    inputs: int, size: int, widths: list[int], heads: list[int], blocks: int, embedding: int
) -> tuple[nn.ModuleDict, list[int]]:
    """The way down, and the channels that each of its parts leaves."""
    parts: dict[str, nn.Module] = {f"{size}x{size}_conv": Layer(inputs, widths[0], 3)}
    kept = [widths[0]]
    for level, width in enumerate(widths):
        side = size >> level
        if level:
            parts[f"{side}x{side}_down"] = Block(
                kept[-1], kept[-1], embedding, decoder=False, resample="down"
            )
            kept.append(kept[-1])
        for index in range(blocks):
            parts[f"{side}x{side}_block{index}"] = Block(
                kept[-1], width, embedding, decoder=False, head_width=heads[level]
            )
            kept.append(width)
    return nn.ModuleDict(parts), kept


def _decoder(
    kept: list[int],
    size: int,
    widths: list[int],
    heads: list[int],
    blocks: int,
    embedding: int,
    head_width: int,
) -> nn.ModuleDict:
    """The way up, each of its blocks joined to what a part of the way down left."""
    parts: dict[str, nn.Module] = {}
    now = widths[-1]
    for level in reversed(range(len(widths))):
        side = f"{size >> level}x{size >> level}"
        if level == len(widths) - 1:
            parts[f"{side}_in0"] = Block(now, now, embedding, decoder=True, head_width=head_width)
            parts[f"{side}_in1"] = Block(now, now, embedding, decoder=True)
        else:
            parts[f"{side}_up"] = Block(now, now, embedding, decoder=True, resample="up")
        for index in range(blocks + 1):
            parts[f"{side}_block{index}"] = Block(
                now + kept.pop(),
                widths[level],
                embedding,
                decoder=True,
                joins=True,
                head_width=heads[level],
            )
            now = widths[level]
    return nn.ModuleDict(parts)
