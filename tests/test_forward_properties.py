"""Random small networks, layouts, dtypes and numbers of tangents."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from forward_ad import jvp as oracle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from reg_engine.forward import jvp, stack
from reg_engine.forward.fallback import counted
from reg_engine.forward.tensor import is_dual, raw

B, N, C, M = 2, 4, 16, 3  # samples, tokens (a picture of 2 x 2), width, tokens of the conditioning
Step = Callable[[Tensor, Tensor, dict[str, Tensor]], Tensor]


class Net(nn.Module):
    """Steps on tokens (rows, N, C), each with weights of its own; `c` (rows, M, C) has no
    tangent."""

    def __init__(self, names: list[str], seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.names = names
        shapes = {"w": (C, C), "wide": (2 * C, C), "b": (C,), "b2": (2 * C,), "g": (C,)}
        shapes |= {"conv": (C, C // 2, 3, 3), "up": (C, C, 1), "token": (1, 1, C), "mask": (N, N)}
        for k in range(len(names)):
            for name, shape in shapes.items():
                weight = torch.randn(shape) / (C**0.5 if len(shape) > 1 else 1)
                self.register_buffer(f"{name}{k}", weight)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        own = dict(self.named_buffers())
        for k, name in enumerate(self.names):
            weights = {key[: -len(str(k))]: v for key, v in own.items() if key.endswith(str(k))}
            x = STEPS[name](x, c, weights)
        return x


def heads(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], -1, 2, C // 2).transpose(1, 2)


def attention(x: Tensor, c: Tensor, w: dict[str, Tensor], mask: Any = None, **k: Any) -> Tensor:
    q, kv = F.linear(x, w["w"], w["b"]), F.linear(x, w["wide"])
    y = F.scaled_dot_product_attention(heads(q), *map(heads, kv.chunk(2, -1)), attn_mask=mask, **k)
    return x + y.transpose(1, 2).reshape(x.shape)


def crossed(x: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
    k, v = F.linear(c, w["wide"], w["b2"]).chunk(2, -1)
    y = F.scaled_dot_product_attention(heads(x), heads(k), heads(v))
    return x + y.transpose(1, 2).flatten(2)


def by_products(x: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
    q = heads(x)
    p = torch.softmax(q @ q.mT * 0.3 + w["mask"], -1)
    return torch.einsum("bhij,bhjd->bihd", p, q).reshape(x.shape)


def convolved(x: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
    image = x.mT.unflatten(-1, (2, 2)).contiguous(memory_format=torch.channels_last)
    image = F.conv2d(image, w["conv"], w["b"], padding=1, groups=2)
    return x + F.silu(F.group_norm(image, 4, w["g"], w["b"])).flatten(2).mT


def resampled(x: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
    image = F.interpolate(x.mT.unflatten(-1, (2, 2)), scale_factor=2.0, mode="bilinear")
    image = F.pixel_unshuffle(F.pad(F.avg_pool2d(image, 2), (1, 1, 1, 1), mode="reflect"), 2)
    return image.flatten(2).mT.reshape(x.shape[0], -1, C)[:, :N]


def turned(x: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
    y = F.layer_norm(x.transpose(0, 1), (C,), w["g"], w["b"])
    y = F.gelu(F.linear(y, w["w"], w["b"])) + y.movedim(-1, 0).flip(1).movedim(0, -1) * 0.5
    return x + y.transpose(0, 1)


def merged(x: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
    y = heads(x).reshape(-1, N, C // 2)
    y = torch.bmm(torch.tanh(y @ y.mT), y)
    return x + y.unflatten(0, (-1, 2)).transpose(1, 2).reshape(x.shape)


def gated(x: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
    scale, shift = F.linear(F.silu(c.mean(1)), w["wide"], w["b2"])[:, None].chunk(2, -1)
    return x + F.rms_norm(x, (C,), w["g"], 1e-6) * (1 + scale) + shift


def joined(x: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
    y = torch.cat([w["token"].expand(x.shape[0], -1, -1), x, c], 1)
    y = torch.roll(y, 1, 1) + torch.stack([y, y.sin()], 2)[:, :, 1]
    return y[:, torch.tensor([0, 3, 2, 4])]


def halved(x: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
    a, b = F.linear(x, w["wide"], w["b2"]).chunk(2, -1)
    y = torch.where(c[:, :1] > 0, a * torch.sigmoid(b), b)
    return torch.cat(
        [
            y[..., : C // 2].clamp(-2, 2),
            a[..., C // 2 :] / (1 + b.norm(dim=-1, keepdim=True))[..., :1],
        ],
        -1,
    )


def written(x: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
    y = torch.zeros_like(x)
    y[:, 1:] = x[:, :-1] * 2
    y[..., 0] = c[:, 0, :1]
    return y.mul_(0.5).add_(x).masked_fill_(w["mask"][:, :1] > 0.5, 0.25)


def rotated(x: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    angles = torch.polar(torch.ones_like(w["b"][: C // 2]), w["b"][: C // 2])
    return torch.view_as_real(pairs * angles).flatten(-2)


def smooth(x: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
    y = F.mish(x) + F.softplus(x) * torch.cos(x) - F.leaky_relu(x, 0.1) ** 2
    return (y - y.mean(-1, keepdim=True)) * torch.rsqrt(y.square().mean(-1, keepdim=True) + 0.1)


def without_rule(x: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
    y = torch.addcmul(x, F.normalize(x, dim=-1), w["g"])
    return torch.lerp(y, torch.maximum(x, c[:, :1]), 0.3)


STEPS: dict[str, Step] = {
    "linear": lambda x, c, w: F.linear(x, w["w"], w["b"]),
    "attention": attention,
    "causal": lambda x, c, w: attention(x, c, w, is_causal=True),
    "masked": lambda x, c, w: attention(x, c, w, (w["mask"] > -0.3).logical_or(torch.eye(N) > 0)),
    "biased": lambda x, c, w: attention(x, c, w, w["mask"]),
    "crossed": crossed,
    "by products": by_products,
    "convolved": convolved,
    "resampled": resampled,
    "turned": turned,
    "merged": merged,
    "gated": gated,
    "joined": joined,
    "halved": halved,
    "written": written,
    "rotated": rotated,
    "smooth": smooth,
    "without rule": without_rule,
}
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.mT.contiguous().mT,
    "strided": lambda x: torch.stack([x, x], -1)[..., 0],
    "batch inside": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
}
NAMES = st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=4)
PLAN = settings(
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)


def drawn(seed: int, primals: int, tangents: int, dtype: torch.dtype) -> tuple[Any, Any, Any]:
    g = torch.Generator().manual_seed(seed)
    shapes = (primals, B, N, C), (tangents, B, N, C), (primals, B, M, C)
    return tuple(torch.randn(s, generator=g, dtype=torch.float64).to(dtype) for s in shapes)


@PLAN
@given(
    names=NAMES,
    seed=st.integers(0, 9),
    primals=st.integers(1, 3),
    tangents=st.integers(1, 3),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    layout=st.sampled_from(sorted(LAYOUTS)),
)
def test_random_networks(
    names: list[str], seed: int, primals: int, tangents: int, dtype: torch.dtype, layout: str
) -> None:
    net = Net(names, seed).to(dtype)
    x, t, c = drawn(seed, primals, tangents, dtype)
    with torch.no_grad(), counted() as met:
        rows = stack([*x], [*t])
        # the same rows, differently in memory
        rows = LAYOUTS[layout](rows)
        own = torch.cat([*c, *[c[-1]] * tangents])
        out = net(rows, own)
        plain = net(LAYOUTS[layout](torch.cat([*x, *[x[-1]] * tangents])), own)
    assert is_dual(out) and out.axis == 0
    assert bool(met) == ("without rule" in names or "rotated" in names and bool(met))
    found = raw(out)
    end = primals * B
    assert torch.equal(found[:end], plain[:end])
    wide = copy.deepcopy(net).double()
    for j, product in enumerate(found[end:].split(B)):
        wanted = oracle(lambda z: wide(z, c[-1].double()), x[-1].double(), t[j].double())[1]
        limit = 1e-10 if dtype == torch.float64 else 1e-3
        assert (product - wanted).norm() <= limit * (wanted.norm() + t[j].norm())


@settings(PLAN, max_examples=25)
@given(names=NAMES, seed=st.integers(0, 9), power=st.integers(-20, 20))
def test_the_product_is_linear_in_the_tangent(names: list[str], seed: int, power: int) -> None:
    net = Net(names, seed).double()
    x, t, c = drawn(seed, 1, 2, torch.float64)
    one = jvp(net, x[0], t[0], c[0])
    other = jvp(net, x[0], t[0] * 2.0**power, c[0])
    assert torch.equal(other.value, one.value)
    assert torch.equal(other.tangent, one.tangent * 2.0**power)
    rows = stack([x[0]], [t[0], t[1], t[0] - 3 * t[1]])
    with torch.no_grad():
        found = raw(net(rows, torch.cat([c[0]] * 4))).split(B)
    total = found[1] - 3 * found[2]
    assert (found[3] - total).norm() <= 1e-11 * (found[1].norm() + 3 * found[2].norm())
