"""The dual ops as benchmarks: a function and its derivative along one tangent, in one call.

`sdpa` is torch's fused attention forward alone: what the primal costs, and the measure of
`attention_dual`, which has three times its products. Everything else gives both results.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.autograd.forward_ad as fwAD
import torch.nn.functional as F
from torch import Tensor

from bench.cases import KernelCase
from bench.kernels import Arguments, Kernel
from reg_engine import ops

__all__ = ["ACTIVATION", "ATTENTION", "CASES", "DUALS", "NORM", "PROVIDERS"]

PROVIDERS = {
    "attention_dual": ("eager", "triton", "sdpa", "jvp_flash_attention"),
    "norm_dual": ("eager", "compile", "triton"),
    "activation_dual": ("eager", "compile", "triton"),
}


def attention(case: KernelCase, device: torch.device) -> Arguments:
    """Queries, keys, values and their tangents, (B, H, N, d), contiguous: the package copies what
    is not."""
    dtype = getattr(torch, case.dtype)
    names = ("q", "k", "v", "q_t", "k_t", "v_t")
    return {name: torch.randn(case.shape, device=device, dtype=dtype) for name in names}


def sdpa(q: Tensor, k: Tensor, v: Tensor, **tangents: Tensor) -> tuple[Tensor, None]:
    """The primal alone."""
    return F.scaled_dot_product_attention(q, k, v), None


def jvp_flash_attention(
    q: Tensor, k: Tensor, v: Tensor, q_t: Tensor, k_t: Tensor, v_t: Tensor
) -> tuple[Tensor, Tensor]:
    """The package of that name, through forward AD, as it wants to be called."""
    from jvp_flash_attention.jvp_attention import JVPAttn

    with fwAD.dual_level():
        pairs = [fwAD.make_dual(a, b) for a, b in ((q, q_t), (k, k_t), (v, v_t))]
        out, out_t = fwAD.unpack_dual(JVPAttn.fwd_dual(*pairs))
        assert out_t is not None
        return out, out_t


def norm(case: KernelCase, device: torch.device) -> Arguments:
    """A U-Net's GroupNorm and SiLU for pictures, else a transformer's modulated LayerNorm."""
    dtype = getattr(torch, case.dtype)
    x, x_t = (torch.randn(case.shape, device=device, dtype=dtype) for _ in range(2))
    if case.name.startswith("group"):
        weight, bias = torch.randn(2, case.shape[1], device=device, dtype=dtype)
        own = {"kind": "group", "groups": 4, "weight": weight, "bias": bias, "activation": "silu"}
    else:
        scale, shift = torch.randn(2, case.shape[0], case.shape[3], device=device, dtype=dtype)
        own = {"kind": "layer", "scale": scale, "shift": shift}
    return {"x": x, "x_t": x_t, **own}


def activation(case: KernelCase, device: torch.device) -> Arguments:
    """A transformer's GELU or GEGLU."""
    dtype = getattr(torch, case.dtype)
    x, x_t = (torch.randn(case.shape, device=device, dtype=dtype) for _ in range(2))
    return {"x": x, "x_t": x_t, "kind": "geglu" if case.name.startswith("geglu") else "gelu_tanh"}


def moved(case: KernelCase) -> int:
    """Two reads and two writes, the latter of half the size where a gate goes."""
    return (3 if case.name.startswith("geglu") else 4) * case.numel * case.itemsize


ATTENTION = Kernel(
    "attention_dual",
    attention,
    lambda case: 8 * case.numel * case.itemsize,
    plain=partial(ops.attention_dual, backend="reference"),
    others={"sdpa": sdpa, "jvp_flash_attention": jvp_flash_attention},
    sums=16,
)
NORM = Kernel("norm_dual", norm, moved, plain=partial(ops.norm_dual, backend="reference"), sums=4)
ACTIVATION = Kernel(
    "activation_dual", activation, moved, plain=partial(ops.activation_dual, backend="reference")
)
DUALS = (ATTENTION, NORM, ACTIVATION)

SHORT = {"float32": "fp32", "bfloat16": "bf16"}


def _attention(length: int, size: int, batch: int, heads: int, dtype: str) -> KernelCase:
    return KernelCase(f"{length}-{size}-{SHORT[dtype]}", (batch, heads, length, size), dtype)


def _case(name: str, shape: tuple[int, int, int, int], dtype: str = "bfloat16") -> KernelCase:
    return KernelCase(f"{name}-{SHORT[dtype]}", shape, dtype)


CASES: dict[str, dict[str, tuple[KernelCase, ...]]] = {
    "attention_dual": {
        "tiny": (_attention(48, 16, 1, 2, "float32"), _attention(32, 40, 1, 2, "float32")),
        "shrunk": tuple(
            _attention(length, size, 2, 6, "float32") for length in (256, 1024) for size in (64, 72)
        ),
        "real": tuple(
            _attention(length, size, 2, 16, "bfloat16")
            for size in (64, 72, 128)
            for length in (1024, 2048, 4096, 8192)
        ),
    },
    "norm_dual": {
        "tiny": (_case("layer", (2, 1, 5, 24), "float32"), _case("group", (2, 8, 4, 5))),
        "shrunk": (
            _case("layer", (8, 1, 256, 384), "float32"),
            _case("group", (4, 128, 32, 32), "float32"),
        ),
        "real": (
            _case("layer", (64, 1, 1024, 1152)),
            _case("group", (16, 320, 64, 64)),
            _case("group-sample", (1, 320, 128, 128)),
        ),
    },
    "activation_dual": {
        "tiny": (_case("gelu", (2, 1, 5, 24), "float32"), _case("geglu", (2, 1, 5, 24))),
        "shrunk": (
            _case("gelu", (8, 1, 256, 1536), "float32"),
            _case("geglu", (4, 1, 1024, 2560), "float32"),
        ),
        "real": (_case("gelu", (64, 1, 256, 4608)), _case("geglu", (8, 1, 4096, 2560))),
    },
}
