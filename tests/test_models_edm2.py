"""The EDM2 U-Net: names, shapes and sizes as published, its answer by another statement, files."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edm2_cases import SMALL, plain, published, small
from safetensors import safe_open
from torch import Tensor

import reg_engine
from reg_engine.errors import InputError
from reg_engine.models import EDM2, load_model
from reg_engine.models.checkpoint import build
from reg_engine.models.presets import CHANNELS
from reg_engine.networks.attention_models import set_attention
from reg_engine.schedules import EDM
from reg_engine.storage.weights import save_weights

# Millions of parameters, as the paper has them (Table 2; XS to XXL).
MILLIONS = {"xs": 125, "s": 280, "m": 498, "l": 777, "xl": 1119, "xxl": 1523}
DESCRIPTION: dict[str, Any] = {
    "architecture": "edm2",
    "arguments": SMALL,
    "prediction": "edm",
    "sigma_data": 0.5,
    "schedule": {"name": "edm", "sigma_min": 0.002, "sigma_max": 80.0},
    "sample_shape": [3, 8, 8],
    "num_classes": 5,
    "null_cond": 5,
}
UNLABELLED = {"num_labels": 0}


def on_meta(**arguments: Any) -> EDM2:
    with torch.device("meta"):
        return EDM2(**arguments)


def batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64).to(dtype)
    t = torch.tensor([-1.5, -0.2, 0.6, 1.1], dtype=torch.promote_types(dtype, torch.float32))
    return x, t, torch.tensor([0, 4, 5, 2])  # 5 is the null label


@pytest.mark.parametrize("size", CHANNELS)
def test_sizes_are_the_papers(size: str) -> None:
    count = sum(p.numel() for p in on_meta(channels=CHANNELS[size]).parameters())
    assert count / 1e6 == pytest.approx(MILLIONS[size], abs=0.51)


@pytest.mark.parametrize(
    ("channels", "image", "labels"), [(192, 4, 1000), (448, 4, 1000), (192, 3, 1000), (128, 4, 0)]
)
def test_names_and_shapes_are_the_published_ones(channels: int, image: int, labels: int) -> None:
    net = on_meta(channels=channels, image_channels=image, num_labels=labels + 1 if labels else 0)
    wanted = published(channels, image, labels)
    assert {name: tuple(value.shape) for name, value in net.state_dict().items()} == wanted
    assert len(wanted) == 200 - (not labels)
    if (channels, image, labels) == (192, 4, 1000):
        assert on_meta().arguments == net.arguments
    again = on_meta(**net.arguments)
    again.load_state_dict(net.state_dict(), strict=True)


CHANGES: dict[str, dict[str, Any]] = {
    "small": {},
    "without labels": UNLABELLED,
    "one block a level": {"multipliers": [1, 2, 3]},
    "three levels": {"multipliers": [1, 2, 1], "blocks": 2, "attention": [8, 2], "head_width": 8},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=list(CHANGES))
def test_the_answer_is_that_of_another_statement(changes: dict[str, Any]) -> None:
    net = small(**changes)
    x, t, cond = batch()
    found, wanted = net(x, t, cond), plain(net, x, t, cond)
    assert wanted.std() > 0.3
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)


def test_its_derivative_is_that_of_another_statement() -> None:
    net = small()
    x, t, cond = batch()
    x.requires_grad_()
    probe = torch.randn_like(x)
    found, wanted = (
        torch.autograd.grad((function(x) * probe).sum(), x)[0]
        for function in (lambda v: net(v, t, cond), lambda v: plain(net, v, t, cond))
    )
    assert wanted.norm() > 1
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precision_answers_alike(dtype: torch.dtype) -> None:
    """Each of some 20 layers in a row rounds once or a few times; a random walk of these."""
    net = small(dtype=dtype)
    x, t, cond = batch(dtype)
    found = net(x, t, cond)
    assert found.dtype == dtype
    wanted = net.double()(x.double(), t.double(), cond)  # of the same rounded weights
    error = float((found.double() - wanted).norm() / wanted.norm())
    assert error <= 10 * torch.finfo(dtype).eps


def test_rows_are_independent_and_a_new_network_answers_zero() -> None:
    net, (x, t, cond) = small(), batch()
    whole = net(x, t, cond)
    for k in range(len(x)):
        one = slice(k, k + 1)
        torch.testing.assert_close(net(x[one], t[one], cond[one]), whole[one], rtol=1e-12, atol=0)
    new = EDM2(**SMALL).double()
    assert not new(x, t, cond).any()


def test_the_null_label_is_zeros() -> None:
    net, (x, t, _) = small(), batch()
    null, first = torch.full((4,), 5), torch.zeros(4, dtype=torch.long)
    told, labelled = net(x, t, null), net(x, t, first)
    assert (told - labelled).abs().max() > 0.01
    with torch.no_grad():
        net.emb_label.weight[:, 1:].mul_(-3)
    assert torch.equal(net(x, t, null), told)
    for wrong in (6, -1):
        with pytest.raises(RuntimeError, match="Class values"):
            net(x, t, torch.full((4,), wrong))
    with pytest.raises(InputError, match=r"cond: is None, .* Give 0 to 5"):
        net(x, t)


def test_a_network_without_labels_ignores_them() -> None:
    net, (x, t, cond) = small(**UNLABELLED), batch()
    assert torch.equal(net(x, t), net(x, t, cond))
    assert not any("label" in name for name in net.state_dict())


def test_settled_networks_answer_the_same() -> None:
    net, given = small(), batch()
    wanted = net(*given)
    assert net.settle() is net
    assert torch.equal(net(*given), wanted)
    fresh = small(seed=3)
    fresh.load_state_dict(net.state_dict())  # normalised a second time, in its calls
    assert float((fresh(*given) - wanted).norm() / wanted.norm()) < 1e-3
    saved = [v for name, v in net.state_dict().items() if name.endswith("weight")]
    rms = [float(v.square().flatten(1).mean(1).sqrt().max()) for v in saved]
    assert len(rms) > 20 and all(0.999 < value <= 1 for value in rms)
    net.train()
    assert not any(getattr(m, "settled", False) for m in net.modules())


def test_every_attention_layer_can_be_told_its_kernel() -> None:
    """Of the kernels on a CPU, forward AD goes through math alone."""
    net, (x, t, cond) = small(), batch()
    probe = torch.randn_like(x)

    def product(function: Callable[..., Tensor]) -> Any:
        return torch.func.jvp(lambda v: function(v, t, cond), (x,), (probe,))

    with pytest.raises(NotImplementedError):
        product(net)
    assert set_attention(net, "math") == 4  # going down, and in0, block0 and block1 going up
    for found, wanted in zip(product(net), product(lambda *given: plain(net, *given)), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_a_compiler_takes_it_whole() -> None:
    net, given = small(), batch()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*given), net(*given), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"size": 9}, "size: 9 cannot be halved 1 times"),
        ({"multipliers": []}, "size: 8 cannot be halved"),
        ({"head_width": 3}, "channels: levels .* heads 3 wide"),
        ({"attention": [8], "multipliers": [1, 2], "head_width": 16}, "heads 16 wide"),
        ({"attention": [], "multipliers": [2, 2, 1], "head_width": 16}, "heads 16 wide"),
        ({"num_labels": 1}, "num_labels: is 1"),
        ({"num_labels": -1}, "num_labels: is -1"),
        ({"num_labels": True}, "num_labels: is True"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        EDM2(**{**SMALL, **changes})


def written(folder: Path, dtype: torch.dtype | None = torch.float16, **changed: Any) -> Path:
    net, path = small(dtype=torch.float16), folder / "net.safetensors"
    save_weights(path, net.state_dict(), {**DESCRIPTION, **changed}, dtype)
    return path


def test_a_file_gives_the_denoiser_of_edm(tmp_path: Path) -> None:
    """D = c_skip x + c_out F(c_in x, ln(sigma)/4), by hand (Karras et al. 2022, Table 1)."""
    model = load_model(written(tmp_path))
    assert (model.prediction, model.null_cond, model.num_classes) == ("edm", 5, 5)
    assert model.schedule == EDM(sigma_min=0.002, sigma_max=80.0) and model.sigma_data == 0.5
    assert model.sample_shape == (3, 8, 8) and model.dtype == torch.float32
    net, _ = build(tmp_path / "net.safetensors", "edm2")
    assert isinstance(net, EDM2)
    x, _, cond = batch()
    sigma = 1.7
    net.double()
    scaled = x / math.hypot(sigma, 0.5)
    inside = plain(net, scaled, torch.full((4,), math.log(sigma) / 4).double(), cond)
    wanted = 0.25 / (sigma**2 + 0.25) * x + sigma * 0.5 / math.hypot(sigma, 0.5) * inside
    with torch.no_grad():
        found = model(x.float(), sigma, cond)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)


def test_a_file_without_labels_samples_without(tmp_path: Path) -> None:
    net, path = small(dtype=torch.float32, **UNLABELLED), tmp_path / "net.safetensors"
    told = {"arguments": {**SMALL, **UNLABELLED}, "num_classes": None, "null_cond": None}
    save_weights(path, net.state_dict(), {**DESCRIPTION, **told}, None)
    model = load_model(path)
    assert (model.null_cond, model.num_classes) == (None, None)
    out = reg_engine.sample(model, None, seeds=[0, 1], scale=1.0, steps=3, progress=False)
    assert out.samples.shape == (2, 3, 8, 8) and out.samples.isfinite().all()
    with pytest.raises(InputError, match="num_classes is 5"):
        save_weights(path, net.state_dict(), {**DESCRIPTION, **told, "num_classes": 5}, None)
        load_model(path)


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
def test_weights_keep_their_own_dtype_where_asked(
    dtype: torch.dtype | None, tmp_path: Path
) -> None:
    with safe_open(written(tmp_path, dtype), framework="pt") as file:
        found = {name: file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    if dtype is None:
        assert found.pop("emb_fourier.freqs") == found.pop("emb_fourier.phases") == torch.float32
    assert set(found.values()) == {dtype or torch.float16}
    with pytest.raises(InputError, match="weights: w is not finite in bfloat16"):
        save_weights(
            tmp_path / "a.safetensors", {"w": torch.tensor([torch.inf])}, {}, torch.bfloat16
        )


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"arguments": {**SMALL, "channels": 448}}, "the network has"),
        ({"arguments": {**SMALL, "num_labels": 0}}, "unknown emb_label.weight"),
        ({"arguments": {**SMALL, "size": 16}}, "missing .*16x16"),
        ({"arguments": {**SMALL, "blocks": 64}}, "blocks are 64"),
        ({"arguments": {**SMALL, "attention": [1.5]}}, "fits no edm2"),
        (
            {"arguments": {**SMALL, "multipliers": [1 << 20] * 2}},
            "unknown enc.4x4_block0.conv_skip",
        ),
        ({"sample_shape": [3, 16, 16]}, "takes no samples"),
        ({"sample_shape": [4, 8, 8]}, "takes no samples"),
        ({"num_classes": 7}, "num_classes is 7"),
        ({"null_cond": 6}, "null_cond is 6"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    changed: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=problem):
        load_model(written(tmp_path, **changed))


def test_forward_mode_needs_no_fallback(tmp_path: Path) -> None:
    out = reg_engine.sample(
        load_model(written(tmp_path)), [0, 3], scale=2.0, rectify="jvp", steps=4, progress=False
    )
    assert out.stats.estimator == "jvp" and out.stats.fallbacks == {}
    assert out.samples.isfinite().all()
