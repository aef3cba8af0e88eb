"""What the EDM2 U-Net is made of: layers that keep the expected magnitude of what they are given.

Written from Karras et al. 2024 (arXiv 2312.02696, config G); equations are that paper's. Sizes of
1e-4 beside a norm, the 0.596 of SiLU and the names of parameters are those of the published
networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks.attention import attention

__all__ = ["Block", "Fourier", "Layer", "join", "silu", "total", "unit"]

EPSILON = 1e-4  # beside a root mean square
SILU = 0.596  # root mean square of SiLU of unit normal numbers
BRANCH = 0.3  # share of a residual branch in its sum
CLIP = 256.0  # what leaves a block: half precision ends at 65504


def unit(x: Tensor, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """x over its root mean square along `dim` (Eq. 47; along the channels: pixel norm, config F).

    Args:
        x: any shape; norms are taken in float32 at least.
        dim: dimensions that are normalised together; None = all but the first.

    Returns:
        x / (rms + 1e-4), in the shape and dtype of x.
    """
    dims = tuple(range(1, x.dim())) if dim is None else (dim,) if isinstance(dim, int) else dim
    count = math.prod([x.shape[d] for d in dims])
    wide = torch.promote_types(x.dtype, torch.float32)
    norm = torch.linalg.vector_norm(x, dim=dims, keepdim=True, dtype=wide)
    return x / (norm / math.sqrt(count) + EPSILON).to(x.dtype)


def silu(x: Tensor) -> Tensor:
    """SiLU that leaves unit normal numbers with unit magnitude (Eq. 81)."""
    return F.silu(x) / SILU


def total(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Weighted sum of two independent terms of unit magnitude, which has it too (Eq. 88).

    Args:
        a, b: of one shape. share: of b in the sum, in [0, 1].
    """
    size = math.hypot(1 - share, share)
    return a * ((1 - share) / size) + b * (share / size)


def join(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Concatenation along the channels, to which b contributes `share` and a the rest (Eq. 103).

    Args:
        a: (B, N, H, W). b: (B, M, H, W). share: in [0, 1].

    Returns:
        (B, N + M, H, W), of unit magnitude where a and b are.
    """
    n, m = a.shape[1], b.shape[1]
    size = math.sqrt((n + m) / ((1 - share) ** 2 + share**2))
    return torch.cat(
        [a * (size * (1 - share) / math.sqrt(n)), b * (size * share / math.sqrt(m))], 1
    )


class Fourier(nn.Module):
    """Cosines of t at random frequencies and phases, each of unit magnitude over them (Eq. 75).

    Args:
        channels: number of frequencies, 2 pi times unit normal numbers.
    """

    freqs: Tensor
    phases: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.empty(channels))
        self.register_buffer("phases", torch.empty(channels))
        nn.init.normal_(self.freqs, 0.0, 2 * math.pi)
        nn.init.uniform_(self.phases, 0.0, 2 * math.pi)

    def forward(self, t: Tensor) -> Tensor:
        """(B,) -> (B, channels), in float32 or in t's own dtype where that is wider."""
        wide = torch.promote_types(t.dtype, torch.float32)
        angles = t.to(wide)[:, None] * self.freqs.to(wide) + self.phases.to(wide)
        return angles.cos() * math.sqrt(2)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Moved as other modules, but never rounded: angles reach some 30 radians."""
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, value in before.items():
            moved = self._buffers[name]
            if value is not None and moved is not None and moved.itemsize < value.itemsize:
                self._buffers[name] = value.to(moved.device)
        return self


class Layer(nn.Module):
    """Convolution or linear layer without a bias, each output's weights used at unit norm (Eq. 47).

    Args:
        inputs, outputs: channels.
        kernel: side of the filter, 1 or 3; 0 = a linear layer.

    In training the stored weights are forced to unit magnitude, too (Eq. 66). `settle` stores the
    weights as they are used instead, for calls that are then spared that work.
    """

    settled = False

    def __init__(self, inputs: int, outputs: int, kernel: int = 0) -> None:
        super().__init__()
        self.padding = kernel // 2
        self.weight = nn.Parameter(torch.empty(outputs, inputs, *[kernel] * (2 if kernel else 0)))
        nn.init.normal_(self.weight)
        self.norm = math.sqrt(self.weight[0].numel())  # of an output's weights of unit magnitude

    def forward(self, x: Tensor, gain: Tensor | None = None) -> Tensor:
        """(B, inputs, ...) -> (B, outputs, ...) in x's dtype; `gain`, one number, multiplies it."""
        if self.training:
            with torch.no_grad():
                self.weight.copy_(self._unit())
        weight = (self.weight if self.settled else self._unit() / self.norm).to(x.dtype)
        if gain is not None:
            weight = weight * gain
        if weight.dim() == 2:
            return F.linear(x, weight)
        return F.conv2d(x, weight, padding=self.padding)

    def _unit(self) -> Tensor:
        return unit(self.weight.to(torch.promote_types(self.weight.dtype, torch.float32)))

    @torch.no_grad()
    def settle(self, on: bool = True) -> None:
        """Store the weights as they are used; or, where that was done, at unit magnitude again."""
        if on and not self.settled:
            self.weight.copy_(self._unit() / self.norm)
        elif self.settled and not on:
            self.weight.mul_(self.norm)
        self.settled = on

    def train(self, mode: bool = True) -> Layer:
        """As in torch; weights that train are not settled."""
        if mode:
            self.settle(False)
        return super().train(mode)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.settled:  # at unit magnitude, as it will be read
            destination[prefix + "weight"] = self.weight.detach() * self.norm

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.settle(False)
        super()._load_from_state_dict(*args, **kwargs)


class Block(nn.Module):
    """Residual block, with attention after it where asked (Fig. 21).

    The encoder's normalises its pixels first; the decoder's takes its shortcut from what it was
    given. Queries, keys and values are normalised (cosine attention, config C).

    Args:
        inputs, outputs: channels; inputs with what is joined to them.
        embedding: channels of the noise level's and the label's embedding.
        decoder: which of the two kinds.
        joins: whether a state of the encoder is joined to the input, by the network.
        resample: "down" or "up" by 2, first; "" = neither.
        head_width: channels of an attention head, a divisor of outputs; 0 = no attention.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding: int,
        *,
        decoder: bool,
        joins: bool = False,
        resample: str = "",
        head_width: int = 0,
    ) -> None:
        super().__init__()
        self.decoder, self.joins, self.resample = decoder, joins, resample
        self.width = head_width
        self.emb_gain = nn.Parameter(torch.empty(()))
        nn.init.zeros_(self.emb_gain)
        self.conv_res0 = Layer(inputs if decoder else outputs, outputs, 3)
        self.emb_linear = Layer(embedding, outputs)
        self.conv_res1 = Layer(outputs, outputs, 3)
        self.conv_skip = Layer(inputs, outputs, 1) if inputs != outputs else None
        self.attn_qkv = Layer(outputs, 3 * outputs, 1) if head_width else None
        self.attn_proj = Layer(outputs, outputs, 1) if head_width else None
        # What set_attention looks for; a block without attention has nothing to set.
        self.attention_backend = "auto" if head_width else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x (B, inputs, H, W), embedding (B, channels) -> (B, outputs, H', W'), in [-256, 256]."""
        if self.resample == "down":
            x = F.avg_pool2d(x, 2)
        elif self.resample == "up":
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if not self.decoder:
            x = unit(x if self.conv_skip is None else self.conv_skip(x), 1)
        y = self.conv_res0(silu(x))
        modulation = 1 + self.emb_linear(embedding, self.emb_gain)
        y = self.conv_res1(silu(y * modulation[:, :, None, None].to(y.dtype)))
        if self.decoder and self.conv_skip is not None:
            x = self.conv_skip(x)
        x = total(x, y, BRANCH)
        if self.attn_qkv is not None:
            x = total(x, self._attended(x), BRANCH)
        return x.clamp(-CLIP, CLIP)

    def _attended(self, x: Tensor) -> Tensor:
        assert self.attn_qkv and self.attn_proj and self.attention_backend
        batch, channels, height, width = x.shape
        # The published order of the channels: head, place within it, which of the three.
        split = self.attn_qkv(x).reshape(batch, -1, self.width, 3, height * width)
        q, k, v = unit(split, 2).permute(3, 0, 1, 4, 2).contiguous().unbind(0)
        mixed = attention(q, k, v, self.attention_backend)
        return self.attn_proj(mixed.mT.reshape(batch, channels, height, width))
