"""DiT and SiT: the released names and shapes, diffusers' network with the same weights, forward
mode, and files."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_models import scrambled
from torch import Tensor, nn

from reg_engine.errors import InputError
from reg_engine.models.dit import DiT, SiT, sizes_of

SMALL = {"size": 8, "width": 24, "blocks": 2, "heads": 3, "num_labels": 6}


def small(kind: type[DiT] = DiT, **changes: int) -> DiT:
    torch.manual_seed(0)
    net = kind(**{**SMALL, **changes})
    places = net.pos_embed.data.clone()
    scrambled(net)
    net.pos_embed.data.copy_(places)  # as published: no network has others
    return net.eval()


def batch(rows: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, 4, 8, 8, dtype=dtype, generator=generator)
    return x, torch.linspace(3.0, 900.0, rows, dtype=dtype), torch.arange(rows) % 6


def released(blocks: int, width: int, tokens: int, patch: int = 2) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the released DiT-*/2 (4 channels, 1000 classes, learned variance)."""
    shapes: dict[str, tuple[int, ...]] = {
        "pos_embed": (1, tokens, width),
        "x_embedder.proj.weight": (width, 4, patch, patch),
        "x_embedder.proj.bias": (width,),
        "t_embedder.mlp.0.weight": (width, 256),
        "t_embedder.mlp.0.bias": (width,),
        "t_embedder.mlp.2.weight": (width, width),
        "t_embedder.mlp.2.bias": (width,),
        "y_embedder.embedding_table.weight": (1001, width),
        "final_layer.linear.weight": (8 * patch**2, width),
        "final_layer.linear.bias": (8 * patch**2,),
        "final_layer.adaLN_modulation.1.weight": (2 * width, width),
        "final_layer.adaLN_modulation.1.bias": (2 * width,),
    }
    rows = {"attn.qkv": 3, "attn.proj": 1, "mlp.fc1": 4, "adaLN_modulation.1": 6}
    for block in range(blocks):
        for name, times in rows.items():
            shapes[f"blocks.{block}.{name}.weight"] = (times * width, width)
            shapes[f"blocks.{block}.{name}.bias"] = (times * width,)
        shapes[f"blocks.{block}.mlp.fc2.weight"] = (width, 4 * width)
        shapes[f"blocks.{block}.mlp.fc2.bias"] = (width,)
    return shapes


@pytest.mark.parametrize(
    ("name", "blocks", "width", "millions"),
    [("S/2", 12, 384, 33), ("B/2", 12, 768, 130), ("L/2", 24, 1024, 458), ("XL/2", 28, 1152, 675)],
)
@pytest.mark.parametrize("kind", [DiT, SiT])
def test_names_shapes_and_size_are_the_released_ones(
    kind: type[DiT], name: str, blocks: int, width: int, millions: int
) -> None:
    for size, tokens in ((32, 256), (64, 1024)):  # images of 256 and of 512
        with torch.device("meta"):
            net = kind(size=size, **sizes_of(name))
        found = {key: tuple(value.shape) for key, value in net.state_dict().items()}
        assert found == released(blocks, width, tokens)
    count = sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert round(count / 1e6) == pytest.approx(millions, abs=1)  # Table 1 of the paper


def peer(net: DiT) -> Any:
    """diffusers' network with the same weights, and with the release's constants."""
    diffusers = pytest.importorskip("diffusers")
    a = net.arguments
    other = diffusers.DiTTransformer2DModel(
        num_attention_heads=a["heads"],
        attention_head_dim=a["width"] // a["heads"],
        in_channels=4,
        out_channels=8,
        num_layers=a["blocks"],
        sample_size=a["size"],
        patch_size=a["patch"],
        num_embeds_ada_norm=a["num_labels"] - 1,
        norm_eps=1e-6,  # 1e-5 where nothing is said
    ).to(net.pos_embed.dtype)
    ours, theirs = net.state_dict(), {}
    for end in ("weight", "bias"):
        theirs[f"pos_embed.proj.{end}"] = ours[f"x_embedder.proj.{end}"]
        theirs[f"proj_out_1.{end}"] = ours[f"final_layer.adaLN_modulation.1.{end}"]
        theirs[f"proj_out_2.{end}"] = ours[f"final_layer.linear.{end}"]
        for i in range(a["blocks"]):
            block, here = f"transformer_blocks.{i}", f"blocks.{i}"
            theirs[f"{block}.norm1.linear.{end}"] = ours[f"{here}.adaLN_modulation.1.{end}"]
            for k, (one, two) in enumerate((("linear_1", 0), ("linear_2", 2))):
                key = f"{block}.norm1.emb.timestep_embedder.{one}.{end}"
                theirs[key] = ours[f"t_embedder.mlp.{two}.{end}"]
                key = f"{block}.ff.net.{('0.proj', '2')[k]}.{end}"
                theirs[key] = ours[f"{here}.mlp.fc{k + 1}.{end}"]
            parts = ours[f"{here}.attn.qkv.{end}"].chunk(3)
            for name, part in zip("qkv", parts, strict=True):
                theirs[f"{block}.attn1.to_{name}.{end}"] = part
            theirs[f"{block}.attn1.to_out.0.{end}"] = ours[f"{here}.attn.proj.{end}"]
    for i in range(a["blocks"]):
        key = f"transformer_blocks.{i}.norm1.emb.class_embedder.embedding_table.weight"
        theirs[key] = ours["y_embedder.embedding_table.weight"]
    other.load_state_dict(theirs)
    return other.eval()


def frequencies_of_the_release(other: Any) -> None:
    for block in other.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_it_is_diffusers_network(dtype: torch.dtype) -> None:
    """To the rounding of the sines of t, which diffusers works out in float32."""
    net = small().to(dtype)
    other, (x, t, cond) = peer(net), batch(6, dtype)
    frequencies_of_the_release(other)
    with torch.no_grad():
        found = net(x, t, cond)
        wanted = other(x, timestep=t, class_labels=cond, return_dict=False)[0]
    assert found.shape == wanted.shape == (6, 8, 8, 8)
    assert (found - wanted).norm() <= 1e-5 * wanted.norm()


def test_diffusers_times_are_not_the_releases() -> None:
    """Its periods are spaced by 127, the release's by 128: the same only at t = 0."""
    net = small().double()
    other, (x, _, cond) = peer(net), batch(4)
    for t, same in ((0.0, True), (500.0, False)):
        times = torch.full((4,), t, dtype=torch.float64)
        with torch.no_grad():
            found = net(x, times, cond)
            wanted = other(x, timestep=times, class_labels=cond, return_dict=False)[0]
        apart = float((found - wanted).norm() / wanted.norm())
        assert apart <= 1e-12 if same else apart > 1e-3, apart


def test_the_time_is_told_as_the_release_does() -> None:
    """cos and sin of t at 10000^(-i/128): the first cosine turns once in 2 pi."""
    net, heard = small().double(), []
    net.t_embedder.mlp[0].register_forward_hook(lambda m, given, out: heard.append(given[0]))
    x, t, cond = batch(3)
    net(x, t, cond)
    rates = 10_000.0 ** (-torch.arange(128, dtype=torch.float64) / 128)
    wanted = torch.cat([(t[:, None] * rates).cos(), (t[:, None] * rates).sin()], 1)
    torch.testing.assert_close(heard[0], wanted, rtol=0, atol=2e-3)  # float32 rates, t to 900


def test_places_say_column_then_row() -> None:
    places = small().pos_embed[0].reshape(4, 4, 24)
    assert torch.equal(places[0, :, :12], places[3, :, :12])  # the column's half
    assert torch.equal(places[:, 0, 12:], places[:, 3, 12:])
    assert torch.allclose(places[2, 1, 0], torch.tensor(1.0).sin())
    assert torch.allclose(places[2, 1, 12], torch.tensor(2.0).sin())


def test_sit_is_the_trunk_as_a_flow() -> None:
    """The release: data at t = 1, and what is predicted is x_0 - eps, in the first channels."""
    trunk, flow = small().double(), small(SiT).double()
    flow.load_state_dict(trunk.state_dict())
    x, t, cond = batch(3)
    found = flow(x, t / 1000, cond)
    wanted = -trunk(x, 1 - t / 1000, cond)[:, :4]
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("kind", [DiT, SiT])
def test_forward_mode_needs_no_fallback(kind: type[DiT]) -> None:
    from forward_ad import jvp

    from reg_engine.forward import passed, rows_of, stack

    net = small(kind)
    x, _, cond = batch(2, torch.float32)
    t, tangent = torch.full((2,), 0.4), torch.randn_like(x)
    rows = stack([x, x], [tangent])
    labels = torch.cat([torch.full((2,), 5), cond, cond])
    output, met = passed(lambda: net(rows, t.repeat(3), labels))
    found = rows_of(output, rows)[4:]
    exact = small(kind).double()
    wanted = jvp(lambda v: exact(v, t.double(), cond), x.double(), tangent.double())[1]
    assert met == {} and wanted.norm() > 0.1 * tangent.norm()
    assert (found - wanted).norm() <= 1e-5 * wanted.norm()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"width": 25}, "width"),
        ({"heads": 5}, "width"),
        ({"size": 9}, "size"),
        ({"outputs": 6}, "outputs"),
        ({"blocks": 0}, "blocks"),
    ],
)
def test_sizes_that_do_not_fit(changes: dict[str, int], named: str) -> None:
    with pytest.raises(InputError) as caught:
        DiT(**{**SMALL, **changes})
    assert caught.value.argument == named


def test_names_that_are_none() -> None:
    for name in ("XL", "XXL/2", "XL/3", ""):
        with pytest.raises(InputError, match="name"):
            sizes_of(name)


def test_a_new_network_leaves_tokens_as_they_are() -> None:
    """adaLN-Zero: gates are 0 before training."""
    net = DiT(**SMALL)
    seen: list[Tensor] = []
    for part in (net.blocks[0], net.blocks[-1]):
        part.register_forward_hook(lambda m, given, out: seen.extend([given[0], out]))
    x, t, cond = batch(2, torch.float32)
    net(x, t, cond)
    assert torch.equal(seen[0], seen[-1])
    assert isinstance(net.final_layer, nn.Module)
