"""The class-conditional U-Net for colour images: diffusers' UNet2DModel behind this project's call.

The sizes are those of the classifier-centric study's CIFAR-10 networks (arXiv 2503.10638, App. B.1:
128 channels, multipliers 1, 2, 2, 2, two blocks a level, attention at 16x16 with heads 64 wide);
the blocks are diffusers', the paper's those of openai/guided-diffusion. 35.75 M parameters with the
label table; the paper says 34.10 M.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import InputError
from ..values import check_sizes

__all__ = ["UNet2D"]

# Of GroupNorm; fewer in narrow networks. Time and label are added to each channel before a norm: in
# groups of one channel it would take them out again.
GROUPS, GROUP_CHANNELS = 32, 4


class UNet2D(nn.Module):
    """Class-conditional U-Net with the call of `reg_engine.Denoiser`. Needs diffusers.

    Args:
        image_channels: channels of the image, 3 for colour.
        size: height and width of the image; halved between levels, so a multiple of
            2^(levels - 1).
        channels: width at full resolution, a multiple of 32 (below 128 of 4).
        multipliers: width of each level, in units of `channels`.
        blocks: residual blocks a level (one more on the way up).
        attention: resolutions with self-attention; the lowest has one in any case.
        head_width: channels of an attention head.
        dropout: in the residual blocks, while training.
        num_labels: rows of the label table: the classes and, last, the null label; 0: none, the
            network ignores `cond`.
        time_scale: what t is multiplied by before its sines, whose periods are 2 pi to 2 pi 10^4.

    Raises:
        InputError: diffusers is missing, or sizes below 1 or that do not divide.
    """

    def __init__(
        self,
        image_channels: int = 3,
        size: int = 32,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (16,),
        head_width: int = 64,
        dropout: float = 0.0,
        num_labels: int = 11,
        time_scale: float = 1000.0,
    ) -> None:
        super().__init__()
        check_sizes(image_channels=image_channels, size=size, channels=channels, blocks=blocks)
        check_sizes(multipliers=multipliers, attention=attention, head_width=head_width)
        widths = [channels * factor for factor in multipliers]
        groups = max(1, min(GROUPS, channels // GROUP_CHANNELS))
        if not widths or any(width % groups or width % head_width for width in widths):
            raise InputError(
                "channels",
                f"{channels} times {tuple(multipliers)} with heads {head_width} wide",
                f"Give multiples of {GROUPS} (below 128 of {GROUP_CHANNELS}) and of the head's "
                "width",
            )
        if size % 2 ** (len(widths) - 1):
            raise InputError(
                "size", f"{size} cannot be halved {len(widths) - 1} times", "Give fewer levels"
            )
        self.arguments: dict[str, Any] = {
            "image_channels": image_channels,
            "size": size,
            "channels": channels,
            "multipliers": list(multipliers),
            "blocks": blocks,
            "attention": list(attention),
            "head_width": head_width,
            "dropout": dropout,
            "num_labels": num_labels,
            "time_scale": time_scale,
        }
        self.num_labels, self.time_scale = num_labels, time_scale
        attended = ["Attn" if size >> level in attention else "" for level in range(len(widths))]
        self.net = _class()(
            sample_size=size,
            in_channels=image_channels,
            out_channels=image_channels,
            block_out_channels=tuple(widths),
            layers_per_block=blocks,
            down_block_types=tuple(f"{kind}DownBlock2D" for kind in attended),
            up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(attended)),
            attention_head_dim=head_width,
            norm_num_groups=groups,
            dropout=dropout,
            num_class_embeds=num_labels or None,
        )
        _start_at_zero(self.net)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """Network output for one batch.

        Args:
            x: (B, image_channels, size, size).
            t: (B,) time, as the network was trained.
            cond: (B,) LongTensor of labels in [0, num_labels); unused where num_labels is 0.

        Returns:
            (B, image_channels, size, size) in the dtype of x.
        """
        labels = cond if self.num_labels else None
        output: Tensor = self.net(x, self.time_scale * t, labels, return_dict=False)[0]
        return output


def _start_at_zero(net: Any) -> None:
    """As in guided-diffusion: every block starts as the identity, the network at zero."""
    for layer in [net.conv_out, *(m.conv2 for m in net.modules() if hasattr(m, "conv2"))]:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


def _class() -> Any:
    try:
        from diffusers.models.unets.unet_2d import UNet2DModel
    except ImportError as error:
        raise InputError(
            "model",
            f"the colour U-Net needs diffusers ({error})",
            "Run `pip install 'reg-engine[diffusers]'`",
        ) from error
    return UNet2DModel
