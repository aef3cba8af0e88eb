"""The network in a checkpoint: state dicts, those inside, NVIDIA's pickled modules."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pickle_cases import kept, persistence, refused, same
from torch import nn

from reg_engine import InputError
from reg_engine.convert import records
from reg_engine.convert.states import items_of, state_of


def put(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


def network(persistent: Any, blocks: int = 2, width: int = 8) -> nn.Module:
    """A U-Net's skeleton in the form of EDM2's: classes, containers and attributes, no arithmetic.

    Written after torch_utils/persistence.py and the layer names of arXiv 2312.02696's release.
    """

    class Fourier(nn.Module):
        def __init__(self, count: int) -> None:
            super().__init__()
            self.register_buffer("freqs", torch.randn(count))
            self.register_buffer("phases", torch.rand(count))
            self.register_buffer("scratch", torch.rand(3), persistent=False)

    class Conv(nn.Module):
        def __init__(self, *shape: int) -> None:
            super().__init__()
            self.out_channels = shape[0]
            self.weight = nn.Parameter(torch.randn(shape))

    class Block(nn.Module):
        def __init__(self, conv: Any) -> None:
            super().__init__()
            self.emb_gain = nn.Parameter(torch.zeros([]))
            self.conv_res0, self.conv_res1 = conv(width, width, 3, 3), conv(width, width, 3, 3)
            self.emb_linear, self.conv_skip = conv(width, width), None
            self.attn_qkv, self.attn_proj = conv(3 * width, width, 1, 1), None

    class Whole(nn.Module):
        def __init__(self, conv: Any, block: Any, fourier: Any) -> None:
            super().__init__()
            self.sigma_data, self.use_fp16, self.img_resolution = 0.5, True, 64
            self._init_args, self._init_kwargs = (), persistent.EasyDict(label_dim=1000)
            self.unet = nn.Module()
            self.unet.emb_fourier = fourier(width)
            self.unet.enc = nn.ModuleDict({"64x64_conv": conv(width, 5, 3, 3)})
            self.unet.enc.update({f"64x64_block{n}": block(conv) for n in range(blocks)})
            self.unet.out_gain = nn.Parameter(torch.zeros([]))
            self.logvar_fourier, self.logvar_linear = fourier(width), conv(1, width)

    classes = [persistent(kind) for kind in (Conv, Block, Fourier)]
    return persistent(Whole)(*classes).eval()


def snapshot(persistent: Any, net: nn.Module) -> Any:
    """The dict around it, with an encoder whose statistics are NumPy's."""

    class Encoder:
        def __init__(self) -> None:
            self.vae_name, self.batch_size, self._vae = "stabilityai/sd-vae-ft-mse", 8, None
            self.scale = np.float32(0.5) / np.float32([4.17, 4.62, 3.71, 3.28])
            self.bias = np.float32(0) - np.float32([5.81, 3.25, 0.12, -2.15]) * self.scale

    data = persistent.EasyDict(encoder=persistent(Encoder)(), loss_fn=None)
    data.update(dataset_kwargs=persistent.EasyDict(class_name="ImageFolderDataset", path="x.zip"))
    data["ema"] = net.requires_grad_(False).to(torch.float16)
    return data


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_a_persistent_network_bit_for_bit(protocol: int, tmp_path: Path) -> None:
    with persistence() as persistent:
        net = network(persistent)
        data = snapshot(persistent, net)
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(data, protocol))
        wanted = data["ema"].state_dict()
    found = kept(tmp_path / "a.pkl")
    assert found.place == "ema" and set(found.tensors) == set(wanted)
    assert "unet.emb_fourier.freqs" in wanted and "unet.emb_fourier.scratch" not in wanted
    for name, value in wanted.items():
        assert value.dtype == torch.float16 and same(found.tensors[name].read(), value), name
    assert found.settings["sigma_data"] == 0.5 and found.settings["img_resolution"] == 64
    assert items_of(found.settings["_init_kwargs"]) == {"label_dim": 1000}
    encoder = items_of(found.tree)["encoder"].state
    kinds = ("multiarray._reconstruct", "numeric._frombuffer")
    assert encoder["batch_size"] == 8 and str(encoder["scale"].kind).endswith(kinds)


def test_the_largest_published_network_takes_a_fifth_of_the_opcodes(tmp_path: Path) -> None:
    """EDM2's have 40 blocks of 7 modules at most; 48 are read here."""
    with persistence() as persistent:
        net = network(persistent, blocks=48)
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(snapshot(persistent, net)))
    budgets = []

    class Counted(records.Budget):
        def __init__(self) -> None:
            super().__init__()
            budgets.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reg_engine.convert.pickles.Budget", Counted)
        found = kept(tmp_path / "a.pkl")
    assert len(found.tensors) > 48 * 5
    used = records.MOST_OPCODES - min(budget.opcodes for budget in budgets)
    assert 1000 < used < records.MOST_OPCODES / 4, used


def test_a_module_alone(tmp_path: Path) -> None:
    with persistence() as persistent:
        net = network(persistent)
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(net))
        wanted = net.state_dict()
    found = kept(tmp_path / "a.pkl")
    assert found.place == "" and set(found.tensors) == set(wanted)


A, B = torch.ones(2), torch.zeros(3)


@pytest.mark.parametrize(
    ("value", "place", "names"),
    [
        ({"a": A}, "", ["a"]),
        ({"model": {"a": A}, "ema": {"b": B}, "opt": {}}, "ema", ["b"]),
        ({"model": {"a": A}, "opt": {"x": B}}, "model", ["a"]),
        ({"state_dict": {"module.a": A, "module.b": B}}, "state_dict", ["a", "b"]),
        ({"model_ema": {"a": A}, "state_dict": {"b": B}}, "model_ema", ["a"]),
        ({"ema": {"module": {"_orig_mod.module.a": A}}}, "ema.module", ["a"]),
        ({"module.a": A, "b": B}, "", ["module.a", "b"]),
        ({"net": {"model.a": A}}, "net", ["a"]),
        ({"ema": {"ema": {"ema": {"ema": {"a": A}}}}}, "ema.ema.ema.ema", ["a"]),
    ],
)
def test_where_the_network_lies(value: Any, place: str, names: list[str], tmp_path: Path) -> None:
    found = kept(put(tmp_path / "a.pt", value))
    assert (found.place, list(found.tensors)) == (place, names)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([A], "there are no names at all"),
        (A, "there are no names at all"),
        ({"weights": {"a": A}, "step": 3}, "there are 'weights', 'step'"),
        ({}, "no names at all"),
        ({"ema": {}}, "no names at all"),
        ({"a": A, "b": 3}, "'b' among its tensors is none"),
        ({"a": A, 3: B}, "'3' among its tensors is none"),
        ({"ema": {"ema": {"ema": {"ema": {"ema": {"a": A}}}}}}, "there are 'ema'"),
    ],
)
def test_no_network(value: Any, says: str, tmp_path: Path) -> None:
    assert says in refused(put(tmp_path / "a.pt", value))


def test_a_whole_model_of_the_authors_class(tmp_path: Path) -> None:
    path = put(tmp_path / "a.pt", Own())
    said = refused(path)
    assert "Own', which is not read here" in said and "its state dict alone" in said


class Own(nn.Linear):
    def __init__(self) -> None:
        super().__init__(2, 2)


def test_a_layer_of_torch_is_a_network(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    found = kept(put(tmp_path / "a.pt", {"net": net}))
    wanted = net.state_dict()
    assert list(found.tensors) == list(wanted)
    assert all(same(found.tensors[name].read(), value) for name, value in wanted.items())


def test_a_module_with_something_else_among_its_parts(tmp_path: Path) -> None:
    net = nn.Linear(2, 2)
    net._parameters["weight"] = 3  # type: ignore[assignment]
    assert "'weight' is no tensor" in refused(put(tmp_path / "a.pt", net))
    net = nn.Linear(2, 2)
    net._parameters["a\nb"] = 3  # type: ignore[assignment]
    assert r"'a\nb' is no tensor" in refused(put(tmp_path / "a.pt", net))
    net = nn.Sequential(nn.Linear(2, 2))
    net._modules["0"] = "text"  # type: ignore[assignment]
    assert "a module without parts" in refused(put(tmp_path / "a.pt", net))


def test_parts_are_counted(tmp_path: Path) -> None:
    net, inner = nn.Module(), nn.Module()
    for n in range(200):
        inner.register_parameter(f"p{n}", nn.Parameter(A))
    for n in range(200):
        net.add_module(f"m{n}", inner)
    assert "more than 32768 modules and tensors" in refused(put(tmp_path / "a.pt", net))
    assert "nested too deep" in refused(_deep(tmp_path))


def test_buffers_and_those_left_out_are_counted(tmp_path: Path) -> None:
    for kind in ("_buffers", "_non_persistent_buffers_set"):
        net, inner = nn.Module(), nn.Linear(1, 1)
        for n in range(200):
            if kind == "_buffers":
                inner.register_buffer(f"b{n}", A)
            else:
                inner._non_persistent_buffers_set.add(f"b{n}")
        for n in range(200):
            net.add_module(f"m{n}", inner)
        assert "more than 32768" in refused(put(tmp_path / "a.pt", net))


def _deep(folder: Path) -> Path:
    """120 modules within one another; the names add up to 720 characters."""
    net = nn.Module()
    for _ in range(120):
        outer = nn.Module()
        outer.add_module("block", net)
        net = outer
    torch.save(net, folder / "deep.pt")
    return folder / "deep.pt"


def test_the_argument_is_named(tmp_path: Path) -> None:
    empty = put(tmp_path / "a.pt", {})
    for path in (tmp_path / "none.pt", empty):
        with pytest.raises(InputError, match="^IN: .* is not converted"):
            state_of(path, "IN")


def test_how_often_a_storage_may_be_shared(tmp_path: Path) -> None:
    one = torch.zeros(1 << 18)
    assert len(kept(put(tmp_path / "a.pt", {f"n{n}": one for n in range(4)})).tensors) == 4
    said = refused(put(tmp_path / "a.pt", {f"n{n}": one for n in range(5)}))
    assert "its tensors are 5242880 bytes, far more than the file" in said
