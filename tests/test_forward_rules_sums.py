"""Sums, means, pooling, resampling and the reductions that are not linear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from forward_cases import Moves, Table, check_all, example, unvisited
from torch import Tensor

from reg_engine.errors import EstimatorError
from reg_engine.forward import jvp

X = Moves((2, 3, 4))
WIDE = Moves((2, 4, 4), lambda z: z.relu())
IMAGE = Moves((2, 4, 6, 4))
CUBE = Moves((2, 3, 4, 4, 4))
TABLE: Table = {}

for _axis in (0, 1):
    example(TABLE, "sum mean", X, -1, axis=_axis)
    example(TABLE, "softmax log_softmax", WIDE, -1, axis=_axis)
    example(TABLE, "logsumexp", WIDE, -1, axis=_axis)
    example(TABLE, "norm", X, 2, -1, axis=_axis)
example(TABLE, "sum mean", X, 1, True)
example(TABLE, "sum mean", X, (0, 1), axis=2)
example(TABLE, "sum mean", X, dim=(1, 2), keepdim=True)
example(TABLE, "sum mean", X, [0], axis=1)
example(TABLE, "sum mean", X, dim=1, dtype=torch.float64)
example(TABLE, "softmax log_softmax", WIDE, dim=1)
example(TABLE, "softmax log_softmax", WIDE, 0, axis=2)
example(TABLE, "softmax log_softmax", WIDE, dim=1, dtype=torch.float64)
example(TABLE, "softmax log_softmax", Moves((2, 4)), dim=None, homes=(F,), fallback=True)
example(TABLE, "logsumexp", WIDE, dim=(1, 2))
example(TABLE, "logsumexp", WIDE, (0, 1), True, axis=2)
example(TABLE, "norm", X, dim=1, keepdim=True)
example(TABLE, "norm", X, "fro", (-1,))
example(TABLE, "norm", X, 1, 1, fallback=True)
example(TABLE, "norm", X, dim=1, dtype=torch.float64, fallback=True)
example(TABLE, "norm", X, "fro", (1, 2))
example(TABLE, "norm", X, 2, (0, 2), True, axis=1)
example(TABLE, "vector_norm", X, 2, -1, axis=(0, 1), homes=(torch.linalg,))
example(TABLE, "vector_norm", X, dim=(1, 2), keepdim=True, homes=(torch.linalg,))
example(TABLE, "vector_norm", X, 3, 1, homes=(torch.linalg,), fallback=True)
example(TABLE, "vector_norm", X, torch.inf, dim=1, homes=(torch.linalg,), fallback=True)

example(TABLE, "normalize", X, dim=-1, homes=(F,), axis=(0, 1))
example(TABLE, "normalize", X, 2.0, 1, 1.5, homes=(F,))
example(TABLE, "normalize", X, 1.0, 2, homes=(F,), fallback=True)

example(TABLE, "fft ifft rfft", X, homes=(torch.fft,), axis=(0, 1))
example(TABLE, "fft rfft irfft", X, 5, 1, homes=(torch.fft,))
example(TABLE, "fft2 ifft2 rfft2 irfft2", X, homes=(torch.fft,))
example(TABLE, "fftn ifftn rfftn irfftn", X, dim=(0, 2), homes=(torch.fft,), axis=1)
example(TABLE, "fftn rfftn", X, (4, 5), (1, 2), homes=(torch.fft,))
example(TABLE, "fftshift ifftshift", X, (1, 2), homes=(torch.fft,))
example(TABLE, "fftshift", X, dim=0, homes=(torch.fft,), axis=1)

example(TABLE, "avg_pool1d", X, 2, axis=(0, 1))
example(TABLE, "adaptive_avg_pool1d", X, 2)
example(TABLE, "avg_pool2d", IMAGE, 2, stride=1, padding=1, axis=(0, 1))
example(TABLE, "avg_pool2d", IMAGE, (2, 1))
example(TABLE, "adaptive_avg_pool2d", IMAGE, (1, 1))
example(TABLE, "avg_pool3d", CUBE, 2)
example(TABLE, "adaptive_avg_pool3d", CUBE, (1, 2, 4))
example(TABLE, "pixel_shuffle pixel_unshuffle channel_shuffle", IMAGE, 2)
example(TABLE, "pixel_unshuffle", Moves((2, 3, 1, 4, 6)), 2, axis=1)
example(TABLE, "unfold", IMAGE, 3, padding=1, homes=(F,))
example(TABLE, "fold", Moves((2, 16, 6)), (4, 6), 2, stride=2, homes=(F,))
for _mode in ("nearest", "bilinear", "bicubic", "area", "nearest-exact"):
    example(TABLE, "interpolate", IMAGE, None, 2.0, _mode, homes=(F,))
example(TABLE, "interpolate", IMAGE, size=(3, 5), mode="bilinear", antialias=True, homes=(F,))
example(TABLE, "upsample", IMAGE, scale_factor=2, homes=(F,))


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("name", TABLE)
def test_tangents_are_those_of_forward_ad(name: str) -> None:
    check_all(TABLE, name)


def test_every_rule_has_an_example() -> None:
    assert unvisited(TABLE, "sums") == set()


PLAIN = torch.randn(4, 6, dtype=torch.float64)


def test_other_names_of_the_dimensions() -> None:
    for call in (lambda x: x.sum(axis=1, keepdims=True), lambda x: torch.mean(x, axis=-1)):
        found = jvp(call, PLAIN, PLAIN.cos())
        assert torch.equal(found.value, call(PLAIN))
        torch.testing.assert_close(found.tangent, call(PLAIN.cos()))


def test_a_length_of_zero_has_no_slope() -> None:
    x = PLAIN * (torch.arange(4) > 0)[:, None]
    for call in (lambda x: x.norm(dim=1), lambda x: torch.linalg.vector_norm(x, dim=1)):
        found = jvp(call, x, PLAIN.cos())
        assert found.tangent[0] == 0 and found.tangent.isfinite().all()


def test_low_precision_in_a_wider_softmax() -> None:
    x = PLAIN.bfloat16()
    found = jvp(lambda x: torch.softmax(x, -1, dtype=torch.float32), x, x.cos())
    assert found.value.dtype == found.tangent.dtype == torch.float32
    wanted = torch.func.jvp(lambda x: x.softmax(-1), (x.double(),), (x.cos().double(),))[1]
    torch.testing.assert_close(found.tangent.double(), wanted, rtol=0.02, atol=1e-3)


MIXED: dict[str, Callable[[Tensor], Any]] = {
    "sum": lambda x: x.sum(0),
    "sum of all": lambda x: x.sum(),
    "mean": lambda x: x - x.mean(0),
    "mean of both": lambda x: x - x.mean((0, 1), keepdim=True),
    "mean by axis": lambda x: x - x.mean(axis=0),
    "softmax": lambda x: x.softmax(0),
    "softmax by default": lambda x: F.softmax(x[:, :, None]),
    "log_softmax": lambda x: x.log_softmax(-2),
    "logsumexp": lambda x: x.logsumexp((0, 1)),
    "norm": lambda x: x / x.norm(),
    "norm of dim": lambda x: x / x.norm(dim=0),
    "linalg_vector_norm": lambda x: x / torch.linalg.vector_norm(x),
    "norm of rows": lambda x: F.normalize(x, dim=0),
    "fft_fft": lambda x: torch.fft.fft(x, dim=0),
    "fft_fft2": lambda x: torch.fft.fft2(x),
    "fft_rfftn": lambda x: torch.fft.rfftn(x),
    "fft_fftshift": lambda x: torch.fft.fftshift(x),
    "avg_pool1d": lambda x: F.avg_pool1d(x.t()[None], 2),
    "interpolate": lambda x: F.interpolate(x.t()[None], scale_factor=2),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x[:, None].expand(-1, 4, -1).mT, 1),
}


@pytest.mark.filterwarnings("ignore:Implicit dimension")
@pytest.mark.parametrize("name", MIXED)
def test_sums_over_the_batch_are_refused(name: str) -> None:
    op = name.partition(" ")[0]
    with pytest.raises(EstimatorError, match=f"network: {op}.* (along the batch|on other rows)"):
        jvp(MIXED[name], PLAIN, PLAIN)
