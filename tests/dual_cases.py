"""Cases of the dual ops, and what float64 forward AD gives for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Pair = tuple[Tensor, Tensor]
F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# Which of q, k, v have a tangent.
ALONG = {"qkv": "qkv", "q": "q", "k": "k", "v": "v", "kv": "kv", "qk": "qk", "qv": "qv"}
MASKS = ("none", "causal", "boolean", "additive", "hidden", "one_row", "by_head")
# Matrices of (B, N, H, d), as a projection leaves them; parts of one projection; every other row.
LAYOUTS = ("contiguous", "heads_last", "fused", "strided", "expanded")

NORM_SHAPES = {"layer": (2, 2, 21), "rms": (2, 2, 21), "group": (2, 4, 4, 5)}


def rand(*shape: int, dtype: torch.dtype = F32, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(17 * seed + sum(shape))
    return torch.randn(shape, generator=g, dtype=F64).to(DEVICE, dtype)


def relative(found: Tensor, exact: Tensor) -> float:
    """|found - exact| / |exact|, 2-norms; NaN where something is not finite."""
    return float((found.double() - exact).norm() / exact.norm().clamp_min(1e-30))


def forward(function: Callable[..., Tensor], at: list[Tensor], along: list[Tensor | None]) -> Pair:
    """Value, and derivatives block by block, by torch's forward AD in float64."""
    at = [x.double() for x in at]
    rows = len(at[0])
    count = next(len(t) for t in along if t is not None) // rows
    value, found = function(*at), []
    for j in range(count):
        block = [
            torch.zeros_like(x) if t is None else t.double()[j * rows : (j + 1) * rows]
            for x, t in zip(at, along, strict=True)
        ]
        found.append(torch.func.jvp(function, tuple(at), tuple(block))[1])
    return value, torch.cat(found)


@dataclass(frozen=True)
class Attention:
    """Arguments of attention_dual: `given` makes them, `exact` is what is to come out."""

    batch: int = 2
    heads: int = 2
    shared: int = 1  # heads of q for each of k
    queries: int = 13
    keys: int = 19
    size: int = 8
    along: str = "qkv"
    count: int = 1
    mask: str = "none"
    layout: str = "contiguous"
    scale: float | None = None
    dtype: torch.dtype = F32
    level: float = 1.0  # of the queries

    def matrices(self, name: str, rows: int, seed: int) -> Tensor:
        heads = self.heads * (self.shared if name == "q" else 1)
        length = self.queries if name == "q" else self.keys
        shape = rows, heads, length, self.size
        if self.layout == "heads_last":
            made = rand(rows, length, heads, self.size, seed=seed).transpose(1, 2)
        elif self.layout == "fused":
            made = rand(rows, length, 3, heads, self.size, seed=seed)[:, :, 1].transpose(1, 2)
        elif self.layout == "strided":
            made = rand(rows, heads, 2 * length, 2 * self.size, seed=seed)[:, :, ::2, 1::2]
        elif self.layout == "expanded" and name != "q":
            made = rand(rows, 1, length, self.size, seed=seed)
            return made.to(self.dtype).expand(shape)
        else:
            made = rand(*shape, seed=seed)
        return (made * (self.level if name == "q" else 1)).to(self.dtype)

    def given(self) -> dict[str, Any]:
        names = {"q": 1, "k": 2, "v": 3}
        found: dict[str, Any] = {n: self.matrices(n, self.batch, s) for n, s in names.items()}
        for name, seed in names.items():
            rows = self.count * self.batch
            there = name in self.along
            found[f"{name}_t"] = self.matrices(name, rows, seed + 5) if there else None
        options = {"is_causal": self.mask == "causal", "scale": self.scale}
        return found | options | {"attn_mask": self.made_mask(), "enable_gqa": self.shared > 1}

    def made_mask(self) -> Tensor | None:
        heads = self.heads * self.shared
        shape = self.batch, heads, self.queries, self.keys
        seen = rand(*shape, seed=9) > -0.3
        seen[..., :1] = True
        if self.mask == "hidden":  # two rows see nothing, and the last key is nobody's
            seen[..., -1] = False
            seen[:, :, 2:3] = seen[:1, 1, 1:2] = False
        return {
            "boolean": seen[:, :1],
            "hidden": seen,
            "additive": 2 * rand(*shape[2:], dtype=self.dtype, seed=9),
            "one_row": seen[:, :1, :1],
            "by_head": rand(heads, 1, self.keys, dtype=self.dtype, seed=9),
        }.get(self.mask)

    def exact(self) -> Pair:
        given = self.given()
        mask = given["attn_mask"]
        options = {key: given[key] for key in ("is_causal", "scale", "enable_gqa")}
        if mask is not None and mask.is_floating_point():
            mask = mask.double()

        def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            with sdpa_kernel(SDPBackend.MATH):
                return F.scaled_dot_product_attention(q, k, v, mask, **options)

        return forward(attention, [given[n] for n in "qkv"], [given[n + "_t"] for n in "qkv"])

    def outputs(self, layout: str = "stacked") -> Pair:
        """Where to write, full of NaN: both parts of one buffer, heads last."""
        shape = (self.count + 2) * self.batch, self.queries, self.heads * self.shared, self.size
        if layout == "strided":
            buffer = rand(*shape[:3], 2 * shape[3])[..., ::2].to(self.dtype)
        else:
            buffer = rand(*shape, dtype=self.dtype)
        buffer = buffer.fill_(torch.nan).transpose(1, 2)
        return buffer[: self.batch], buffer[2 * self.batch :]


ATTENTION = {
    **{f"along-{name}": Attention(along=name) for name in ALONG},
    **{f"two-{name}": Attention(along=name, count=2) for name in ("qkv", "q", "kv")},
    **{f"mask-{mask}": Attention(mask=mask) for mask in MASKS[1:]},
    "mask-two": Attention(mask="hidden", along="q", count=2),
    "mask-tall": Attention(mask="causal", queries=23, keys=11),
    **{f"layout-{layout}": Attention(layout=layout, along="qkv") for layout in LAYOUTS[1:]},
    "shared": Attention(1, shared=3, count=2, mask="boolean"),
    "shared-one": Attention(heads=1, shared=4, along="kv"),
    "scale": Attention(scale=0.7, along="qk"),
    "one-of-each": Attention(1, 1, 1, 1, 1, 1),
    "steep": Attention(level=20.0),
}


def narrowed(case: Attention, dtype: torch.dtype) -> Attention:
    return replace(case, dtype=dtype)


def norm(kind: str, groups: int, options: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    """y of `ops.norm_dual`, made of torch.nn.functional alone."""

    def function(x: Tensor) -> Tensor:
        channels = x.shape[1 if kind == "group" else -1]
        given = {key: None if t is None else t.double() for key, t in options.items()}
        weight, bias, scale, shift = (given.get(k) for k in ("weight", "bias", "scale", "shift"))
        if kind == "group":
            y = F.group_norm(x.contiguous(), groups, weight, bias, 1e-3)
        elif kind == "layer":
            y = F.layer_norm(x, (channels,), weight, bias, 1e-3)
        else:
            y = F.rms_norm(x, (channels,), weight, 1e-3)
            y = y if bias is None else y + bias
        place = [len(x), *[1] * (x.dim() - 1)]
        place[1 if kind == "group" else -1] = channels
        if scale is not None:
            y = y * (1 + scale.reshape(place))
        return y if shift is None else y + shift.reshape(place)

    return function


def activation(kind: str) -> Callable[[Tensor], Tensor]:
    """y of `ops.activation_dual`."""
    plain = {
        "gelu": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "silu": F.silu,
    }
    if kind in plain:
        return plain[kind]
    gate = plain[{"geglu": "gelu", "geglu_tanh": "gelu_tanh", "swiglu": "silu"}[kind]]
    return lambda x: x.chunk(2, -1)[0] * gate(x.chunk(2, -1)[1])


def arguments(name: str, dtype: torch.dtype = F64) -> dict[str, Any]:
    """Keyword arguments of `ops.<name>`: no constant, a mask, everything a norm can take."""
    if name == "attention_dual":
        return Attention(2, 1, 2, 3, 4, 2, count=2, mask="boolean", dtype=dtype).given()
    x, x_t = rand(2, 5, 6, dtype=dtype, seed=1), rand(4, 5, 6, dtype=dtype, seed=2)
    if name == "activation_dual":
        return {"x": x, "x_t": x_t, "kind": "geglu"}
    vectors = {"weight": rand(6, seed=3), "bias": rand(6, seed=4)}
    rows = {"scale": rand(2, 6, seed=5), "shift": rand(2, 6, seed=6)}
    given = {key: value.to(dtype) for key, value in (vectors | rows).items()}
    return {"x": x, "x_t": x_t, "kind": "layer", **given, "activation": "silu"}


def norm_arguments(
    kind: str, names: str, dtype: torch.dtype = F32, count: int = 1
) -> dict[str, Any]:
    shape = NORM_SHAPES[kind]
    channels = shape[1] if kind == "group" else shape[-1]
    given: dict[str, Any] = {
        "x": (2 * rand(*shape, seed=1) + 0.7).to(dtype),
        "x_t": rand(count * shape[0], *shape[1:], dtype=dtype, seed=2),
        "kind": kind,
        "eps": 1e-3,
        "groups": 2,
    }
    sizes = {"weight": (channels,), "bias": (channels,)}
    for seed, name in enumerate(("weight", "bias", "scale", "shift")):
        if name in names:
            size = sizes.get(name, (shape[0], channels))
            given[name] = rand(*size, dtype=dtype, seed=seed + 3)
    return given | ({"activation": "silu"} if "silu" in names else {})


def norm_exact(given: dict[str, Any]) -> Pair:
    """y and y_t in float64."""
    own = {k: given[k] for k in ("weight", "bias", "scale", "shift") if k in given}
    function = norm(given["kind"], given.get("groups", 1), own)
    if "activation" in given:
        return forward(lambda x: F.silu(function(x)), [given["x"]], [given["x_t"]])
    return forward(function, [given["x"]], [given["x_t"]])
