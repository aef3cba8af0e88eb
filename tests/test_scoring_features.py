"""Feature networks by name: the same numbers as the network itself, and no surprise."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scoring_cases import CODE, WIDTH, network, pixels, project
from torch import Tensor, nn

from reg_engine import InputError, load_classifier
from reg_engine.metrics import features as classifier_features
from reg_engine.scoring import Network, Resize, load_network
from reg_engine.scoring.known import DEVIATION, MEAN

IMAGES = torch.from_numpy(pixels(6)).permute(0, 3, 1, 2)


class Small(nn.Module):
    """Means of each colour and of their squares."""

    def forward(self, images: Tensor) -> Tensor:
        """(n, 6)"""
        values = images.float() / 255
        return torch.cat([values.mean((2, 3)), values.square().mean((2, 3))], 1)


class Both(nn.Module):
    """As an Inception network in TorchScript: the features only where they are asked for."""

    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        """(n, 3), or (n, 1)"""
        found = images.float().mean((2, 3))
        return found if return_features else found[:, :1]


def test_a_file_of_python_gives_its_function(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(CODE)
    net = load_network(f"{tmp_path}/own.py:features")
    found, logits = net(IMAGES)
    assert torch.equal(found, project(IMAGES)[0]) and torch.equal(logits, project(IMAGES)[1])
    assert found.dtype == torch.float64 and found.shape == (6, WIDTH)
    again = load_network(f"{tmp_path}/own.py:features")
    assert again.fingerprint == net.fingerprint
    (tmp_path / "own.py").write_text(CODE.replace("/ 14", "/ 15"))
    assert load_network(f"{tmp_path}/own.py:features").fingerprint != net.fingerprint


def test_a_module_of_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("own_features")
    net = nn.Sequential(nn.Dropout(0.5), nn.Flatten()).train()
    module.__dict__.update(net=lambda images: net(images.float()), whole=net, kind=nn.Flatten)
    monkeypatch.setitem(sys.modules, "own_features", module)
    assert load_network("own_features:net")(IMAGES)[0].shape == (6, 192)
    assert load_network("own_features:whole") and not net.training
    for bad in ("own_features:missing", "own_features:kind", "no.such.module:x", "own_features:"):
        with pytest.raises(InputError, match="features"):
            load_network(bad)


def test_the_weights_are_in_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("own_features")
    module.net = nn.Linear(2, 2)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_features", module)
    one = load_network("own_features:net").fingerprint
    with torch.no_grad():
        module.net.bias += 1e-3  # type: ignore[attr-defined]
    assert load_network("own_features:net").fingerprint != one


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.jit.script(Small()).save(str(path))
    net = load_network(str(path))
    assert torch.equal(net(IMAGES)[0], Small()(IMAGES)) and net(IMAGES)[1] is None
    torch.jit.script(Both()).save(str(path))
    other = load_network(str(path))
    assert torch.equal(other(IMAGES)[0], IMAGES.float().mean((2, 3)))
    assert other.fingerprint != net.fingerprint
    torch.save({"a": torch.zeros(2)}, path)  # weights without a program
    for content in (path.read_bytes(), b"nothing", b""):
        path.write_bytes(content)
        with pytest.raises(InputError, match="TorchScript"):
            load_network(str(path))


def test_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    make = onnx.helper
    floats = onnx.TensorProto.FLOAT
    shape = ["n", 3, 8, 8]
    for kind in (onnx.TensorProto.UINT8, floats):
        nodes = [
            make.make_node("Cast", ["x"], ["f"], to=floats),
            make.make_node("GlobalAveragePool", ["f"], ["p"]),
            make.make_node("Flatten", ["p"], ["y"]),
        ]
        ends = [make.make_tensor_value_info("x", kind, shape)]
        out = [make.make_tensor_value_info("y", floats, ["n", 3])]
        model = make.make_model(
            make.make_graph(nodes, "g", ends, out), opset_imports=[make.make_opsetid("", 13)]
        )
        model.ir_version = 8
        onnx.save(model, str(tmp_path / "net.onnx"))
        found, logits = load_network(str(tmp_path / "net.onnx"))(IMAGES)
        assert logits is None
        assert torch.allclose(found, IMAGES.float().mean((2, 3)), rtol=1e-6)
    (tmp_path / "net.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match="ONNX"):
        load_network(str(tmp_path / "net.onnx"))


def test_onnx_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match="pip install onnxruntime"):
        load_network("net.onnx")


def test_the_packaged_classifiers_are_themselves() -> None:
    values = pixels(5, side=28)[..., 0]
    images = torch.from_numpy(values)[:, None]
    net, judge = load_network("mnist"), load_classifier("mnist")
    found, logits = net(images)
    expected = classifier_features(judge, values)
    assert torch.allclose(found.double(), expected, atol=1e-6)
    assert logits is not None
    zeros = torch.zeros(5)
    assert torch.allclose(logits, judge(images.float() / 127.5 - 1, zeros), atol=1e-5)
    assert torch.equal(net(images.expand(-1, 3, -1, -1))[0], found)  # grey, three times
    with pytest.raises(InputError, match="coloured"):
        net(torch.from_numpy(pixels(2, side=28)).permute(0, 3, 1, 2))
    assert net.fingerprint != load_network("fashion").fingerprint


def test_grey_images_are_repeated_for_a_colour_network() -> None:
    seen: list[Tensor] = []

    def call(images: Tensor) -> Tensor:
        seen.append(images)
        return images.flatten(1).float()

    Network("n", call, "f")(IMAGES[:, :1])
    assert torch.equal(seen[0], IMAGES[:, :1].repeat(1, 3, 1, 1))
    Network("n", call, "f", Resize(5, "tf-bilinear"))(IMAGES)
    assert torch.equal(seen[1], Resize(5, "tf-bilinear")(IMAGES))


@pytest.mark.parametrize(
    "made",
    [
        torch.zeros(5, 3),
        torch.zeros(6),
        torch.zeros(6, 0),
        torch.full((6, 2), torch.nan),
        np.zeros((6, 2)),
        None,
        (torch.zeros(6, 2), torch.zeros(5, 2)),
    ],
)
def test_what_is_no_matrix_of_vectors_is_refused(made: Any) -> None:
    with pytest.raises(InputError, match="features: n made"):
        Network("n", lambda images: made, "f")(IMAGES)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["tf-bilinear", "torch-bicubic", "pil-bicubic"])
def test_on_a_gpu_features_are_those_of_the_cpu(name: str) -> None:
    """Convolutions in float32 without TF32 differ by 1e-4 of the features' size at most."""
    images = torch.from_numpy(pixels(40, side=20)).permute(0, 3, 1, 2)[:, :1]
    with torch.backends.cudnn.flags(allow_tf32=False):
        pair = [load_network("mnist", resize=Resize(28, name), device=d) for d in ("cpu", "cuda")]
        (one, logits), (other, more) = (net(images) for net in pair)
    assert other.device.type == "cpu" and logits is not None and more is not None
    assert float((one - other).abs().max()) < 1e-4 * float(one.abs().max())
    assert float((logits - more).abs().max()) < 1e-4 * float(logits.abs().max())
    assert pair[0].fingerprint == pair[1].fingerprint


def test_logits_have_the_dtype_of_the_features() -> None:
    """They are kept in one array: a stop must not change a dtype."""
    net = Network("n", lambda images: (images.flatten(1).float(), images.flatten(1).double()), "f")
    assert [each.dtype for each in net(IMAGES) if each is not None] == [torch.float32] * 2


def test_half_precision_is_kept_as_float32() -> None:
    net = Network("n", lambda images: images.flatten(1).to(torch.bfloat16), "f")
    assert net(IMAGES)[0].dtype == torch.float32


def test_inception_is_torch_fidelitys(tmp_path: Path) -> None:
    module = pytest.importorskip(
        "torch_fidelity.feature_extractor_inceptionv3", reason="torch-fidelity is not installed"
    )
    torch.manual_seed(0)
    made = module.FeatureExtractorInceptionV3.__new__(module.FeatureExtractorInceptionV3)
    weights: dict[str, Tensor] = {}
    with pytest.MonkeyPatch.context() as patch:  # new weights, in the published names
        patch.setattr(module, "load_state_dict_from_url", lambda *a, **k: {})
        load = module.FeatureExtractorInceptionV3.load_state_dict
        patch.setattr(
            module.FeatureExtractorInceptionV3,
            "load_state_dict",
            lambda self, state: (
                weights.update(self.state_dict()) if not state else load(self, state)
            ),
        )
        made.__init__("inception", ["2048", "logits_unbiased"])
    torch.save(weights, tmp_path / "w.pth")
    images = torch.from_numpy(pixels(2, side=40)).permute(0, 3, 1, 2)
    found, logits = load_network(f"inception:{tmp_path / 'w.pth'}")(images)
    expected = made(images)
    assert torch.equal(found, expected[0]) and torch.equal(logits, expected[1])
    torch.save({"a": weights}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="no weights of Inception"):
        load_network(f"inception:{tmp_path / 'w.pth'}")


def test_inception_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(InputError, match="pip install torch-fidelity"):
        load_network("inception:w.pth")


def test_dinov2_is_the_class_token(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=224, patch_size=14
    )
    torch.manual_seed(0)
    model = transformers.Dinov2Model(config).eval()
    model.save_pretrained(tmp_path / "dino")
    images = torch.from_numpy(pixels(2, side=40)).permute(0, 3, 1, 2)
    net = load_network(f"dinov2:{tmp_path / 'dino'}")
    assert net.resize == Resize(224, "torch-bicubic")
    mean, deviation = (torch.tensor(v)[:, None, None] for v in (MEAN, DEVIATION))
    values = nn.functional.interpolate(
        images.float(), (224, 224), mode="bicubic", antialias=True
    ).clamp(0, 255)
    with torch.no_grad():
        expected = model(pixel_values=(values / 255 - mean) / deviation).pooler_output
    assert torch.allclose(net(images)[0], expected, atol=1e-5)
    other = load_network(f"dinov2:{tmp_path / 'dino'}", resize=Resize(224, "pil-bicubic"))
    assert 0 < float((other(images)[0] - expected).abs().max()) < 0.1
    transformers.CLIPVisionModel(
        transformers.CLIPVisionConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(tmp_path / "clip")
    for folder in ("clip", "missing"):
        with pytest.raises(InputError, match="no DINOv2"):
            load_network(f"dinov2:{tmp_path / folder}")


def test_an_unknown_network_is_refused() -> None:
    for bad in ("resnet", "", "C:", "a b:c", "dinov2"):
        with pytest.raises(InputError, match="features"):
            load_network(bad)
    with pytest.raises(InputError, match="device"):
        load_network("mnist", device="nowhere")
    assert network()(IMAGES)[0].shape == (6, WIDTH)
