"""Stacked passes under torch.compile and under autocast."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from forward_ad import jvp as oracle
from torch import Tensor, nn

from reg_engine.forward import stack
from reg_engine.forward.tensor import raw

COMPILER = shutil.which("c++") or shutil.which("g++")


class DiTBlock(nn.Module):
    """Attention and a feed-forward layer, shifted, scaled and gated by the conditioning."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.first, self.last = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.modulation = nn.Linear(width, 6 * width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale, gate, shift2, scale2, gate2 = self.modulation(F.silu(c))[:, None].chunk(6, -1)
        q, k, v = self.qkv(self.norm(x) * (1 + scale) + shift).chunk(3, -1)
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v)
        x = x + gate * self.out(y.transpose(1, 2).flatten(2))
        y = F.gelu(self.first(self.norm(x) * (1 + scale2) + shift2), approximate="tanh")
        return x + gate2 * self.last(y)


class TinyDiT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(4, 16, 2, 2)
        self.block, self.leave = DiTBlock(16, 2), nn.Linear(16, 16)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        tokens = self.block(self.patch(x).flatten(2).mT, c)
        return F.pixel_shuffle(self.leave(tokens).mT.unflatten(-1, (4, 4)), 2)


class TinyUNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.down = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2, 1)
        self.norm, self.embed = nn.GroupNorm(2, 8), nn.Linear(16, 8)
        self.leave = nn.Conv2d(16, 4, 3, padding=1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        h = self.enter(x)
        y = F.silu(self.norm(self.down(h)) + self.embed(c)[:, :, None, None])
        y = F.interpolate(y * y.sigmoid(), scale_factor=2.0)
        return self.leave(torch.cat([h, torch.relu(y)], 1)) + x.clamp(-1, 1) ** 2


def whole(net: nn.Module) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """[ref; cond; two tangents] from one pass, as plain tensors."""

    def run(x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        return raw(net(stack([x, x], [t, t.cos()]), c))

    return run


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    x, t = torch.randn(2, 2, 4, 8, 8, dtype=dtype).unbind(0)
    own = torch.randn(4, 16, dtype=dtype)
    return x, t, torch.cat([own, own[2:], own[2:]])


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", [TinyDiT, TinyUNet])
def test_a_whole_pass_compiles_without_a_break(kind: type[nn.Module], backend: str) -> None:
    if backend == "inductor" and COMPILER is None:
        pytest.skip("needs a C++ compiler")
    net = kind().requires_grad_(False)
    whole(net)(*inputs())  # layouts are classes, which are made in plain Python
    torch._dynamo.reset()
    run = torch.compile(whole(net), fullgraph=True, backend=backend)
    with torch.no_grad():
        for _ in range(2):
            given = inputs()
            torch.testing.assert_close(run(*given), whole(net)(*given), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("kind", [TinyDiT, TinyUNet])
def test_the_networks_of_this_file_are_right(kind: type[nn.Module]) -> None:
    net = kind().double().requires_grad_(False)
    x, t, c = inputs(torch.float64)
    rows = whole(net)(x, t, c).split(2)
    with torch.inference_mode():
        again = whole(net)(x, t, c).split(2)
    for k, tangent in enumerate((t, t.cos())):
        wanted = oracle(lambda z: net(z, c[2:4]), x, tangent)[1]
        torch.testing.assert_close(rows[2 + k], wanted, rtol=1e-10, atol=1e-12)
        assert torch.equal(rows[2 + k], again[2 + k])


@pytest.mark.parametrize("kind", [TinyDiT, TinyUNet])
def test_under_autocast_predictions_are_the_networks_own(kind: type[nn.Module]) -> None:
    net = kind().requires_grad_(False)
    x, t, c = inputs()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rows = whole(net)(x, t, c)
        plain = net(torch.cat([x] * 4), c)
    assert rows.dtype == plain.dtype
    assert torch.equal(rows[:4], plain[:4])
    net.double()
    for k, tangent in enumerate((t, t.cos())):
        wanted = oracle(lambda z: net(z, c[2:4].double()), x.double(), tangent.double())[1]
        found = rows.double().split(2)[2 + k]
        assert (found - wanted).norm() < 0.03 * wanted.norm()


LAYERS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: F.linear(x, torch.ones(3, 8).tril(), torch.arange(3.0)),
    "convolution": lambda x: F.conv1d(x, torch.ones(3, 4, 1).cumsum(0), torch.arange(3.0)),
    "matmul": lambda x: x @ x.mT,
    "attention": lambda x: F.scaled_dot_product_attention(*[x[:, None]] * 3),
    "layer norm": lambda x: F.layer_norm(x, (8,), torch.arange(8.0), torch.ones(8)),
    "group norm": lambda x: F.group_norm(x, 2, torch.arange(4.0), torch.ones(4)),
    "rms norm": lambda x: F.rms_norm(x, (8,), torch.arange(8.0)),
    "batch norm": lambda x: F.batch_norm(x, torch.ones(4), torch.ones(4)),
    "softmax": lambda x: x.softmax(-1),
    "gelu of linear": lambda x: F.gelu(F.linear(x, torch.ones(3, 8).tril())),
    "sum": lambda x: x.bfloat16().sum(-1),
    "einsum": lambda x: torch.einsum("bij,bkj->bik", x, x),
}


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_under_autocast(name: str, low: bool) -> None:
    x, t = torch.randn(2, 4, 4, 8).unbind(0)
    given, moving = (v.bfloat16() if low else v for v in (x, t))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rows = raw(LAYERS[name](stack([given], [moving])))
        plain = LAYERS[name](torch.cat([given, given]))
    assert rows.dtype == plain.dtype and torch.equal(rows[:4], plain[:4])

    def exact(z: Tensor) -> Tensor:
        return z.sum(-1) if name == "sum" else LAYERS[name](z)

    wanted = oracle(exact, given.float(), moving.float())[1]
    assert (rows[4:].float() - wanted).norm() < 0.02 * wanted.norm()


OPS: dict[str, Callable[[Tensor], Tensor]] = {
    "power": lambda x: x**2 + (1 - x) + 1 / (x + 9) + x // 2,
    "methods in Python": lambda x: (
        x.unflatten(1, (2, 2)).split(1, 2)[1] + x.norm(dim=1)[:, None, None]
    ),
    "einsum": lambda x: torch.einsum("bi,...ij->...bj", x, torch.ones(2, 4, 4)).movedim(1, 0),
    "masks": lambda x: torch.where(x > 0, x, 0.0).masked_fill(x > 1, 0.5) * x[:, :1].tanh(),
}


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("name", OPS)
def test_ops_as_the_compiler_sees_them(name: str) -> None:
    def run(x: Tensor, t: Tensor) -> Tensor:
        return raw(OPS[name](stack([x], [t])))

    x, t = torch.randn(2, 3, 4).unbind(0)
    wanted = run(x, t)
    torch._dynamo.reset()
    found = torch.compile(run, fullgraph=True, backend="eager")(x, t)
    torch.testing.assert_close(found, wanted)


@pytest.mark.filterwarnings("ignore:.*")
def test_what_cannot_be_compiled_is_refused() -> None:
    x, t = torch.randn(2, 3, 4).unbind(0)
    net = nn.MultiheadAttention(4, 2, batch_first=True).eval()
    for call in (lambda x: x.amax(1), lambda x: net(x[:, None], x[:, None], x[:, None])[0]):
        torch._dynamo.reset()
        run = torch.compile(lambda x, t, c=call: raw(c(stack([x], [t]))), fullgraph=True)
        with pytest.raises(Exception, match="has no rule, which torch.compile asks for"):
            run(x, t)
