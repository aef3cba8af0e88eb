"""Checkpoints in, files out that load_model reads: the networks are the same, bit for bit."""

from __future__ import annotations

import argparse
import os
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from edm2_cases import SMALL
from edm2_cases import small as small_edm2
from pickle_cases import persistence, refused, same, watched
from test_models_dit import small as small_dit
from torch import nn

from reg_engine import InputError
from reg_engine.convert import door
from reg_engine.convert.door import convert
from reg_engine.models import load_model
from reg_engine.models.dit import DiT, SiT
from reg_engine.models.edm2_layers import Block
from reg_engine.storage.weights import describe, read

HEADS = {"heads": 3}  # of small_dit


def checkpoint(net: nn.Module) -> dict[str, Any]:
    """As DiT's and SiT's training saves it."""
    other = {name: torch.zeros_like(value) for name, value in net.state_dict().items()}
    optimizer = torch.optim.AdamW(net.parameters())
    args = argparse.Namespace(model="DiT-XL/2", image_size=256)
    return {"model": other, "ema": net.state_dict(), "opt": optimizer.state_dict(), "args": args}


def put(path: Path, value: Any, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


@pytest.mark.parametrize("kind", [DiT, SiT])
@pytest.mark.parametrize("form", ["training", "alone", "legacy", "safetensors"])
def test_a_transformer_is_the_same_after(kind: type[DiT], form: str, tmp_path: Path) -> None:
    net = small_dit(kind)
    state, name = net.state_dict(), kind.__name__
    source, out = tmp_path / f"{name}-256x256.pt", tmp_path / "out.safetensors"
    if form == "safetensors":
        source = source.with_suffix(".safetensors")
        safetensors.torch.save_file(state, source)
    else:
        value = checkpoint(net) if form == "training" else state
        put(source, value, _use_new_zipfile_serialization=form != "legacy")
    with watched() as seen:
        done = convert(source, out, **HEADS)
    assert not [event for event in seen if event.startswith(("exec", "os.system", "pickle"))]
    assert (done.architecture, done.dtypes) == (name.lower(), ("float32",))
    assert done.place == ("ema" if form == "training" else "") and done.tensors == len(state)
    assert done.parameters == sum(value.numel() for value in state.values())
    assert done.size == out.stat().st_size and done.path == str(out)
    model = load_model(out)
    assert type(model.net) is kind and model.sample_shape == (4, 8, 8)
    assert (model.num_classes, model.null_cond) == (5, 5)
    assert model.learned_variance == (kind is DiT)
    for key, value in model.net.state_dict().items():
        assert same(value, state[key].float()), key
    x, labels = torch.randn(2, 4, 8, 8), torch.tensor([0, 5])
    t = torch.tensor([0.3, 0.7])
    with torch.no_grad():
        assert torch.equal(model.net(x, t, labels), net(x, t, labels))
    assert describe(out)["source"] == {
        "file": source.name,
        "place": done.place,
        "model": done.model,
    }


def persisted(net: nn.Module, persistent: Any) -> nn.Module:
    """The same module with persistent classes, as NVIDIA pickles it; torch's own stay."""
    kind = type(net)
    if not kind.__module__.startswith("torch."):
        kind = persistent(type(kind.__name__, (nn.Module,), {}))
    made = kind.__new__(kind)
    made.__dict__ = dict(net.__dict__)
    if isinstance(net, Block):  # what the published blocks say of themselves
        width = net.conv_res1.weight.shape[0]
        heads = width // SMALL["head_width"] if net.attn_qkv is not None else 0
        made.__dict__ |= {"out_channels": width, "num_heads": heads, "res_balance": 0.3}
    parts = {name: persisted(part, persistent) for name, part in net._modules.items() if part}
    made.__dict__["_modules"] = parts
    return made


def snapshot(folder: Path, net: nn.Module, **attributes: Any) -> Path:
    """A published EDM2 file: the U-Net in its preconditioning, in float16, in a dict."""

    class Precond(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sigma_data, self.use_fp16 = 0.5, True
            self.unet = net
            self.logvar_linear = nn.Linear(3, 1, bias=False)
            vars(self).update(attributes)

    path = folder / "edm2-img64-s-1073741-0.075.pkl"
    with persistence() as persistent:
        whole = persisted(Precond(), persistent)
        path.write_bytes(pickle.dumps(persistent.EasyDict(ema=whole, loss_fn=None)))
    return path


@pytest.mark.parametrize("labels", [6, 0])
def test_an_edm2_snapshot_is_the_same_after(labels: int, tmp_path: Path) -> None:
    net = small_edm2(num_labels=labels)
    for value in (*net.parameters(), *net.buffers()):
        value.data = value.data.half()  # buffers, too, as published
    state, out = net.state_dict(), tmp_path / "out.safetensors"
    done = convert(snapshot(tmp_path, net), out)
    assert (done.architecture, done.place, done.dtypes) == ("edm2", "ema", ("float16",))
    assert done.dropped == ("logvar_linear.weight",) and done.tensors == len(state)
    weights, description = read(out)
    assert set(weights) == set(state)
    assert all(same(weights[name], state[name]) for name in state)
    assert description["arguments"] == net.arguments and "latents" not in description
    model, wanted = load_model(out), small_edm2(0, torch.float32, num_labels=labels)
    wanted.load_state_dict({name: value.float() for name, value in state.items()})
    assert model.prediction == "edm" and model.sigma_data == 0.5
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0.1, 0.4])
    cond = torch.tensor([0, labels - 1]) if labels else None
    with torch.no_grad():
        torch.testing.assert_close(
            model.net(x, t, cond), wanted.settle()(x, t, cond), rtol=0, atol=0
        )


def test_other_constants_are_refused(tmp_path: Path) -> None:
    source = snapshot(tmp_path, small_edm2(), sigma_data="x")
    with pytest.raises(InputError, match="IN: .*sigma_data"):
        convert(source, tmp_path / "out.safetensors")
    net = small_edm2()
    net.label_balance = 0.7  # type: ignore[assignment]
    with pytest.raises(InputError, match="label_balance is another than 0.5"):
        convert(snapshot(tmp_path, net), tmp_path / "out.safetensors")
    assert os.listdir(tmp_path) == ["edm2-img64-s-1073741-0.075.pkl"]


def test_dtypes(tmp_path: Path) -> None:
    net = small_dit().half()
    source, out = put(tmp_path / "dit.pt", net.state_dict()), tmp_path / "out.safetensors"
    for dtype, kind in (("keep", "float16"), ("float32", "float32"), ("float16", "float16")):
        done = convert(source, out, dtype=dtype, **HEADS)
        assert done.dtypes == (kind,)
        weights, _ = read(out)
        for name, value in net.state_dict().items():
            assert same(weights[name], value.to(getattr(torch, kind)))
    mixed = {
        name: value.float() if "bias" in name else value for name, value in net.state_dict().items()
    }
    assert convert(put(source, mixed), out, **HEADS).dtypes == ("float16", "float32")
    weights, _ = read(out)
    assert all(same(weights[name], mixed[name]) for name in mixed)
    brain = {name: value.bfloat16() for name, value in mixed.items()}
    assert convert(put(source, brain), out, **HEADS).dtypes == ("bfloat16",)
    with pytest.raises(InputError, match="--dtype: unknown name 'int8'"):
        convert(source, out, dtype="int8", **HEADS)


@pytest.mark.parametrize(
    ("value", "dtype", "says"),
    [
        (float("nan"), "keep", "IN: 'pos_embed' holds NaN or Inf"),
        (float("-inf"), "float32", "IN: 'pos_embed' holds NaN or Inf"),
        (1e6, "float16", "--dtype: 'pos_embed' is not finite in float16. Give keep or float32"),
    ],
)
def test_numbers_that_cannot_be_kept(value: float, dtype: str, says: str, tmp_path: Path) -> None:
    net, out = small_dit(), tmp_path / "out.safetensors"
    out.write_bytes(b"before")
    net.pos_embed.data[0, 3, 5] = value
    source = put(tmp_path / "dit.pt", net.state_dict())
    with pytest.raises(InputError, match=says):
        convert(source, out, dtype=dtype, **HEADS)
    assert out.read_bytes() == b"before" and sorted(os.listdir(tmp_path)) == [source.name, out.name]


def test_weights_that_are_no_floats(tmp_path: Path) -> None:
    for kind, said in ((torch.int64, "int64"), (torch.float8_e4m3fn, "float8_e4m3fn")):
        state = {name: value.to(kind) for name, value in small_dit().state_dict().items()}
        source = put(tmp_path / "dit.pt", state)
        with pytest.raises(InputError, match=f"IN: '.*' holds {said}"):
            convert(source, tmp_path / "out.safetensors", **HEADS)


def test_places_that_are_refused(tmp_path: Path) -> None:
    source = put(tmp_path / "dit.pt", small_dit().state_dict())
    before = source.read_bytes()
    state = tmp_path / "sit.safetensors"
    safetensors.torch.save_file(small_dit(SiT).state_dict(), state)
    (tmp_path / "link.safetensors").symlink_to(state)
    (tmp_path / "folder.safetensors").mkdir()
    for one, out, says in (
        (source, source, "OUT: is .* Give a .safetensors file"),
        (source, tmp_path / "out.pt", "OUT: is .* Give a .safetensors file"),
        (state, state, "OUT: .* is the checkpoint itself"),
        (state, tmp_path / "link.safetensors", "OUT: .* is the checkpoint itself"),
        (source, tmp_path / "folder.safetensors", "OUT: .* is a folder"),
        (tmp_path, tmp_path / "out.safetensors", r"IN: .* is a folder.* denoiser_of\(folder\)"),
        (tmp_path / "none.pt", tmp_path / "out.safetensors", "IN: .*No such file"),
    ):
        with pytest.raises(InputError, match=says):
            convert(one, out, **HEADS)
    assert source.read_bytes() == before and not (tmp_path / "out.safetensors").exists()


def test_again_is_the_same_file(tmp_path: Path) -> None:
    source, out = put(tmp_path / "dit.pt", checkpoint(small_dit())), tmp_path / "out.safetensors"
    convert(source, out, **HEADS)
    first = out.read_bytes()
    convert(source, out, **HEADS)
    assert out.read_bytes() == first and len(os.listdir(tmp_path)) == 2
    with pytest.raises(InputError, match="it is converted already: load_model reads it"):
        convert(out, tmp_path / "again.safetensors")


def test_truncated_files_say_so(tmp_path: Path) -> None:
    whole = put(tmp_path / "dit.pt", small_dit().state_dict()).read_bytes()
    older = tmp_path / "older-dit.pt"
    old = put(older, small_dit().state_dict(), _use_new_zipfile_serialization=False).read_bytes()
    snap = snapshot(tmp_path, small_edm2()).read_bytes()
    path = tmp_path / "cut-dit.pt"
    for data in (whole, old, snap):
        for part in (0.1, 0.5, 0.9, 0.999):
            path.write_bytes(data[: int(len(data) * part)])
            refused(path, lambda cut: convert(cut, tmp_path / "out.safetensors", **HEADS))
    assert not (tmp_path / "out.safetensors").exists()


def test_the_written_file_is_read_by_another_reader(tmp_path: Path) -> None:
    net, out = small_dit(), tmp_path / "out.safetensors"
    convert(put(tmp_path / "dit.pt", net.half().state_dict()), out, **HEADS)
    found = safetensors.torch.load_file(out)
    assert all(same(found[name], value) for name, value in net.state_dict().items())
    with pytest.MonkeyPatch.context() as patch:

        def other(*arguments: Any) -> Any:
            kinds = writes(*arguments)
            return kinds | {"more": kinds["pos_embed"]}

        writes = door._write
        patch.setattr(door, "_write", other)
        with pytest.raises(InputError, match="OUT: .* was damaged as it was written"):
            convert(tmp_path / "dit.pt", out, **HEADS)


def test_one_tensor_is_in_memory_at_a_time(tmp_path: Path) -> None:
    net = DiT(size=8, width=384, blocks=6, heads=6, num_labels=2)
    source = put(tmp_path / "dit.pt", net.half().state_dict())
    largest = max(value.nbytes for value in net.state_dict().values())
    tracemalloc.start()
    convert(source, tmp_path / "out.safetensors", heads=6)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert source.stat().st_size > 10 * largest and peak < 3 * largest + 2e6
