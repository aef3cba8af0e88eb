"""Ops whose forward rule PyTorch lacks or limits, however they are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from forward_points import SHAPE, error
from torch import Tensor, nn

from reg_engine.forward import jvp


class ChannelsLast(nn.Module):
    """GroupNorm behind a convolution in the channels_last format."""

    def __init__(self, norm: Callable[[Tensor, int, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), norm
        self.weight, self.bias = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(4))
        self.double().to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        h = self.conv(x.to(memory_format=torch.channels_last))
        assert not h.is_contiguous()
        return torch.tanh(self.norm(h, 2, self.weight, self.bias))


NORMS: dict[str, Callable[..., Tensor]] = {
    "functional": F.group_norm,
    "torch": torch.group_norm,
    "keywords": lambda x, n, w, b: F.group_norm(input=x, num_groups=n, weight=w, bias=b),
    "overload": lambda x, n, w, b: torch.ops.aten.group_norm.default(x, n, w, b),
    "module": lambda x, n, w, b: nn.GroupNorm(n, 4).double()(x),
}


@pytest.mark.parametrize("norm", NORMS)
def test_group_norm_takes_any_memory_format(norm: str) -> None:
    assert error(ChannelsLast(NORMS[norm]).requires_grad_(False)) < 1e-8


@pytest.mark.parametrize(
    "norm",
    [
        nn.GroupNorm(2, 4),
        nn.LayerNorm(4),
        nn.BatchNorm2d(4).eval(),
        nn.InstanceNorm2d(4, affine=True),
    ],
    ids=lambda norm: type(norm).__name__,
)
def test_norms_beside_wider_weights_keep_the_inputs_dtype(norm: nn.Module) -> None:
    """Weights in float32, everything else in bfloat16: a common way to hold a network."""
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    norm.requires_grad_(False)
    x, tangent = torch.randn(2, 2, *SHAPE)
    wanted = torch.func.jvp(norm, (x,), (tangent,))[1]
    found = jvp(norm, x.bfloat16(), tangent.bfloat16())
    assert found.value.dtype == found.tangent.dtype == torch.bfloat16
    assert (found.tangent - wanted).norm() < 0.02 * wanted.norm()


class Tokens(nn.Module):
    """Attention over the rows of an image, by any of PyTorch's ways."""

    def __init__(self, mix: Any) -> None:
        super().__init__()
        self.mix = mix
        self.double().eval().requires_grad_(False)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return self.mix(x.reshape(-1, 16, 4)).reshape_as(x)


class Multihead(nn.MultiheadAttention):
    def __init__(self, **options: Any) -> None:
        super().__init__(4, 2, batch_first=True)
        self.options = options

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        output, weights = super().forward(x, x, x, **self.options)
        assert (weights is not None) == self.options["need_weights"]
        return output


def heads(x: Tensor) -> Tensor:
    return x.reshape(-1, 16, 2, 2).transpose(1, 2)


class Scripted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        q = x.reshape(-1, 16, 2, 2).transpose(1, 2)
        return F.scaled_dot_product_attention(q, q, q)


def mixers() -> dict[str, Any]:
    torch.manual_seed(3)
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    causal = torch.ones(16, 16, dtype=torch.bool).triu(1)
    return {
        "encoder": layer,
        "stack": nn.TransformerEncoder(layer, 2),
        "heads": Multihead(need_weights=False),
        "weights": Multihead(need_weights=True),
        "causal": Multihead(need_weights=False, is_causal=True, attn_mask=causal),
        "call": lambda x: F.scaled_dot_product_attention(heads(x), heads(x), heads(x)),
        "script": torch.jit.script(Scripted()),
    }


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("name", mixers())
def test_attention_has_a_tangent_however_it_is_called(name: str) -> None:
    mix = mixers()[name]
    net = Tokens(mix) if isinstance(mix, nn.Module) else lambda x, t, c: mix(x).reshape(x.shape)
    assert error(net) < 1e-8


def test_diffusers_unet_has_a_tangent() -> None:
    """Its convolutions leave GroupNorm an input that is not contiguous behind attention."""
    diffusers = pytest.importorskip("diffusers")
    net = diffusers.UNet2DModel(
        sample_size=4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        attention_head_dim=4,
        layers_per_block=1,
        down_block_types=("AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D"),
    )
    net = net.double().eval().requires_grad_(False).to(memory_format=torch.channels_last)
    assert error(lambda x, t, c: net(x, t).sample) < 1e-8
