"""Published names and shapes are told apart; others by what is missing, too many, and a guess."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from edm2_cases import published
from test_models_dit import released

from reg_engine import InputError
from reg_engine.convert.layouts import looks_like, recognise
from reg_engine.convert.states import State
from reg_engine.convert.tensors import Storage, Stored
from reg_engine.models.dit import SIZES, sizes_of
from reg_engine.models.latents import EDM2_LATENTS, SD_LATENTS, Latents
from reg_engine.models.presets import CHANNELS, PRESETS


def state(shapes: Mapping[str, tuple[int, ...]]) -> State:
    """Tensors of these shapes that lie nowhere."""
    held = {}
    for name, shape in shapes.items():
        stride = tuple(math.prod(shape[n + 1 :]) for n in range(len(shape)))
        storage = Storage(torch.float16, math.prod(shape))
        held[name] = Stored(storage, torch.float16, 0, shape, stride)
    return State(held, "", {}, {})


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("patch", [2, 4, 8])
@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("model", ["dit", "sit"])
def test_every_size_of_dit_and_sit(size: str, patch: int, side: int, model: str) -> None:
    arguments = sizes_of(f"{size}/{patch}")
    tokens = (side // patch) ** 2
    shapes = released(arguments["blocks"], arguments["width"], tokens, patch)
    found = recognise(state(shapes), f"{model.upper()}-{size}.pt")
    whole = {"image_channels": 4, "size": side, "num_labels": 1001, "outputs": 8}
    assert (found.architecture, dict(found.arguments)) == (model, arguments | whole)
    title = {"dit": "DiT", "sit": "SiT"}[model]
    assert found.model == f"{title}-{size}/{patch}, {side}x{side}" and found.dropped == ()
    assert found.names == {name: name for name in shapes}
    told = found.description
    assert (told["sample_shape"], told["num_classes"], told["null_cond"]) == (
        [4, side, side],
        1000,
        1000,
    )
    assert told["prediction"] == {"dit": "epsilon", "sit": "flow"}[model]
    assert told["learned_variance"] == (model == "dit")
    assert Latents(**told["latents"]) == SD_LATENTS


FILES = {p.net for p in PRESETS.values()} | {p.guide for p in PRESETS.values() if p.guide}


@pytest.mark.parametrize("net", sorted(FILES, key=lambda net: net.file), ids=lambda net: net.file)
def test_every_published_edm2(net: Any) -> None:
    image = net.arguments["image_channels"]
    labels = 1000 if net.labels else 0
    shapes = published(CHANNELS[net.size], image, labels)
    theirs = {f"unet.{name}": shape for name, shape in shapes.items()}
    theirs |= {"logvar_fourier.freqs": (128,), "logvar_fourier.phases": (128,)}
    theirs["logvar_linear.weight"] = (1, 128)
    found = recognise(state(theirs), net.file)
    assert found.architecture == "edm2"
    assert {key: found.arguments[key] for key in net.arguments} == net.arguments
    assert found.names == {name: f"unet.{name}" for name in shapes}
    assert sorted(found.dropped) == [name for name in sorted(theirs) if "logvar" in name]
    title, size = f"EDM2-{net.size.upper()}", net.arguments["size"]
    told = "1000 classes" if labels else "no labels"
    assert found.model == f"{title}, {size}x{size}, {told}"
    classes = labels or None
    assert found.description["num_classes"] == found.description["null_cond"] == classes
    assert found.description["sample_shape"] == [image, size, size]
    assert found.description["sigma_data"] == 0.5
    if image == 4:
        assert Latents(**found.description["latents"]) == EDM2_LATENTS
    else:
        assert "latents" not in found.description


def test_edm2_of_another_shape() -> None:
    """Levels, blocks and attention are read off the names."""
    from reg_engine.models import EDM2

    arguments: dict[str, Any] = {"image_channels": 3, "size": 32, "channels": 64, "blocks": 1}
    arguments |= {"multipliers": [1, 3], "attention": [32], "head_width": 64, "num_labels": 11}
    net = EDM2(**arguments)
    found = recognise(state({k: tuple(v.shape) for k, v in net.state_dict().items()}), "x.pt")
    assert found.arguments == arguments and found.model == "EDM2, 32x32, 10 classes"


SMALL = released(12, 384, 16)


def refused(shapes: Mapping[str, tuple[int, ...]], where: str = "x.pt", **options: Any) -> str:
    with pytest.raises(ValueError) as caught:
        recognise(state(shapes), where, **options)
    return str(caught.value)


def test_dit_and_sit_are_told_by_the_option_or_the_files_name() -> None:
    assert recognise(state(SMALL), "x.pt", "sit").architecture == "sit"
    assert recognise(state(SMALL), "DiT-S.pt", "sit").architecture == "sit"
    assert recognise(state(SMALL), "runs_SIT-xl.pt").architecture == "sit"
    for name in ("x.pt", "edit.pt", "situation.pt", "dit-or-sit.pt", "credits.pt"):
        said = refused(SMALL, name)
        assert said.startswith("--model: ") and "Give --model dit or --model sit" in said
    said = refused(SMALL, model="ddit")
    assert "unknown name 'ddit'. Did you mean 'dit'" in said


def changed(**changes: Any) -> dict[str, tuple[int, ...]]:
    found = dict(SMALL)
    for name, shape in changes.items():
        key = name.replace("__", ".")
        if shape is None:
            del found[key]
        else:
            found[key] = shape
    return found


def test_what_is_missing_and_too_many_is_named() -> None:
    said = refused(changed(pos_embed=None), "dit.pt")
    assert "as DiT it lacks 'pos_embed', the first of" in said and "has " not in said
    gone = changed(blocks__3__attn__qkv__bias=None, blocks__3__attn__proj__bias=None)
    gone["extra.weight"] = gone["projector.weight"] = (1,)
    said = refused(gone, "sit.pt")
    assert "as SiT it lacks 'blocks.3.attn.qkv.bias', the first of 2" in said
    assert "has 'extra.weight', the first of 2 unknown ones; it looks like DiT or SiT" in said
    said = refused({"x" * 500: (1,)}, "dit.pt")
    assert len(said) < 500 and "lacks 'pos_embed'" in said


def test_shapes_that_do_not_fit_are_named() -> None:
    said = refused(changed(blocks__2__mlp__fc1__weight=(1537, 384)), "dit.pt")
    assert "'blocks.2.mlp.fc1.weight' is (1537, 384), of a DiT-S/2, 8x8 it is (1536, 384)" in said
    said = refused(changed(pos_embed=(1, 20, 384)), "dit.pt")  # no square of patches
    assert "'pos_embed' is (1, 20, 384), of a DiT-S/2, 8x8 it is (1, 16, 384)" in said


def test_arguments_that_the_network_refuses() -> None:
    said = refused(changed(final_layer__linear__weight=(20, 384)), "dit.pt")
    assert "outputs" in said
    with pytest.raises(InputError, match="outputs"):
        recognise(state(changed(final_layer__linear__weight=(2, 384))), "dit.pt")


def test_a_width_of_ones_own_needs_its_heads() -> None:
    shapes = released(2, 96, 16)
    said = refused(shapes, "dit.pt")
    assert said.startswith("--heads: ") and "width 96" in said
    found = recognise(state(shapes), "dit.pt", heads=3)
    assert found.arguments["heads"] == 3 and found.model == "DiT of 2 blocks of 96, 8x8"


def edm2(drop: str = "", **more: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    shapes = {f"unet.{name}": shape for name, shape in published(192, 4, 1000).items()}
    return {name: shape for name, shape in shapes.items() if name != drop} | more


def test_edm2_that_lacks_something() -> None:
    said = refused(edm2("unet.dec.8x8_in0.conv_res0.weight"))
    assert "as EDM2 it lacks 'unet.dec.8x8_in0.conv_res0.weight', the first of 1;" in said
    assert "it looks like EDM2" in said
    said = refused(edm2("unet.enc.64x64_conv.weight"))
    assert "lacks 'unet.enc.64x64_conv.weight', the first of 1" in said
    said = refused(edm2(augment=(3,)))
    assert "has 'augment', the first of 1 unknown ones" in said
    twice = edm2(out_gain=())
    assert "has 'unet.out_gain'" in refused(twice) or "has 'out_gain'" in refused(twice)


OTHERS = {
    "FLUX": ["double_blocks.0.img_attn.qkv.weight"],
    "Stable Diffusion 3": ["model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"],
    "latent diffusion or Stable Diffusion": [
        "model.diffusion_model.input_blocks.0.0.weight",
        "first_stage_model.encoder.conv_in.weight",
    ],
    "ADM (guided-diffusion)": ["time_embed.0.weight", "input_blocks.0.0.weight"],
    "EDM (Karras et al. 2022)": ["model.map_layer0.weight", "model.enc.64x64_conv.weight"],
    "a VAE": ["encoder.conv_in.weight", "decoder.conv_in.weight"],
    "a U-Net of diffusers": ["conv_in.weight", "down_blocks.0.resnets.0.conv1.weight"],
    "a transformer of diffusers": ["pos_embed.proj.weight", "transformer_blocks.0.attn1.to_q.bias"],
}


@pytest.mark.parametrize("looks", OTHERS)
def test_other_models_are_guessed(looks: str) -> None:
    shapes = {name: (3, 3) for name in OTHERS[looks]}
    for model in (None, "dit", "sit", "edm2"):
        said = refused(shapes, model=model)
        assert f"it looks like {looks}" in said and f"has {OTHERS[looks][0]!r}" in said
        assert ("denoiser_of(folder)" in said) == ("diffusers" in looks)
    assert looks_like({"weight": 1}) == ""


def test_the_layout_of_diffusers_is_guessed() -> None:
    diffusers = pytest.importorskip("diffusers")
    with torch.device("meta"):
        kind = diffusers.DiTTransformer2DModel
        net = kind(num_layers=1, attention_head_dim=8, num_attention_heads=2, sample_size=8)
        unet = diffusers.UNet2DModel(sample_size=8, block_out_channels=(32, 32), layers_per_block=1,
            down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)  # fmt: skip
    for one, looks in ((net, "a transformer of diffusers"), (unet, "a U-Net of diffusers")):
        said = refused({key: tuple(value.shape) for key, value in one.state_dict().items()})
        assert f"it looks like {looks}. Load the folder" in said


def test_shapes_that_ask_for_more_than_the_file_has() -> None:
    """Nothing is made before all shapes are compared: a table of places would take 2^50 bytes."""
    small = changed(pos_embed=(1, 1 << 30, 1), x_embedder__proj__weight=(1 << 20, 4, 2, 2))
    said = refused(small, "dit.pt", heads=1)
    assert "'pos_embed' is (1, 1073741824, 1), of a DiT" in said
    many = changed() | {f"blocks.{n}.x": (1,) for n in range(100)}
    assert "blocks are 100" in refused(many, "dit.pt")


@pytest.mark.parametrize("model", ["edm2", "dit"])
def test_a_tensor_without_sizes_is_refused_whichever_it_is(model: str) -> None:
    shapes = edm2() if model == "edm2" else released(2, 384, 256)
    for name, shape in shapes.items():
        if shape:
            assert refused({**shapes, name: ()}), name
