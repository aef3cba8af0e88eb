"""PyTorch's own layers, one by one, beside forward AD."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from forward_ad import jvp as oracle
from torch import Tensor, nn

from reg_engine.errors import EstimatorError
from reg_engine.forward import jvp

norms = nn.utils.parametrizations
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "weight norm": lambda: norms.weight_norm(nn.Linear(4, 4)),
    "spectral norm": lambda: norms.spectral_norm(nn.Linear(4, 4)).eval(),
    "lazy linear": lambda: nn.LazyLinear(3),
    "circular convolution": lambda: nn.Conv1d(6, 6, 3, padding="same", padding_mode="circular"),
    "decoder": lambda: nn.TransformerDecoderLayer(4, 2, 8, batch_first=True).eval(),
    "instance norm": lambda: nn.InstanceNorm1d(6, affine=True),
    "batch norm": lambda: nn.BatchNorm1d(6).eval(),
    "response norm": lambda: nn.LocalResponseNorm(2),
    "max pool": lambda: nn.MaxPool1d(2),
    "adaptive max pool": lambda: nn.AdaptiveMaxPool1d(2),
    "power pool": lambda: nn.LPPool1d(2, 2),
    "upsample": lambda: nn.Upsample(scale_factor=2, mode="linear"),
    "reflection": lambda: nn.ReflectionPad1d(1),
    "constant pad": lambda: nn.ConstantPad1d(1, 2.0),
    "unflatten": lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Flatten()),
    "prelu": lambda: nn.PReLU(6),
    "rrelu": lambda: nn.RReLU().eval(),
    "glu": lambda: nn.GLU(),
    "hardtanh": lambda: nn.Hardtanh(-0.3, 0.4),
    "hardswish": lambda: nn.Hardswish(),
    "threshold": lambda: nn.Threshold(0.1, 0.2),
    "softshrink": lambda: nn.Softshrink(),
    "alpha dropout": lambda: nn.AlphaDropout().eval(),
    "softmax": lambda: nn.Softmax(-1),
    "selu in place": lambda: nn.SELU(inplace=True),
    "silu in place": lambda: nn.SiLU(inplace=True),
    "relu in place": lambda: nn.ReLU(inplace=True),
    "celu": lambda: nn.CELU(),
}
X = torch.randn(3, 6, 4, dtype=torch.float64)


def of(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    def call(x: Tensor) -> Tensor:
        y = x * 1  # which the layer may write into
        return layer(y, y.sin()) if isinstance(layer, nn.TransformerDecoderLayer) else layer(y)

    return call


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer(name: str) -> None:
    layer = LAYERS[name]().double()
    with torch.no_grad():
        of(layer)(X)
    layer.requires_grad_(False)
    value, tangent = oracle(of(layer), X, X.cos())
    found = jvp(of(layer), X, X.cos())
    torch.testing.assert_close(found.value, value, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.tangent, tangent, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "kind", [nn.GRU, nn.LSTM, nn.RNN, nn.RReLU, nn.BatchNorm1d, nn.AlphaDropout]
)
def test_a_layer_that_cannot_be_served_is_named(kind: type[nn.Module]) -> None:
    recurrent = issubclass(kind, nn.RNNBase)
    size = (4, 4) if recurrent else (6,) if kind is nn.BatchNorm1d else ()
    layer = kind(*size, batch_first=True) if recurrent else kind(*size)
    net = nn.Sequential(nn.Identity(), layer.double())
    with pytest.raises(EstimatorError, match=rf"network: \w+ in 1 \({kind.__name__}\) "):
        jvp(net, X, X)
