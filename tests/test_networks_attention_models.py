"""set_attention: the packaged model, and those of diffusers, old and new."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from attention_cases import PACKAGES, pretend
from torch import Tensor, nn

from reg_engine import Denoiser, EstimatorError, InputError, load_model, sample
from reg_engine.networks import attention_models
from reg_engine.networks.attention import BACKENDS
from reg_engine.networks.attention_models import set_attention


def double_mnist() -> Denoiser:
    """In float64, where another order of summation is no more than 1e-15."""
    model = load_model("mnist")
    model.net.double()
    return model


def drawn(model: Denoiser, rectify: str) -> Tensor:
    choices: dict[str, Any] = {"scale": 3.0, "steps": 2, "dtype": torch.float64}
    return sample(model, [3, 7], rectify=rectify, progress=False, **choices).samples


@pytest.mark.parametrize("name", ["auto", "sdpa", "math", "flash"])
def test_packaged_model_samples_the_same_under_every_backend(name: str) -> None:
    model = double_mnist()
    wanted = drawn(model, "vjp")
    assert set_attention(model, name) == 1
    torch.testing.assert_close(drawn(model, "vjp"), wanted, rtol=1e-9, atol=1e-9)


def test_jvp_is_served_whichever_of_pytorchs_kernels_is_set() -> None:
    model = double_mnist()
    wanted = drawn(model, "jvp")
    for name in ("math", "flash"):
        set_attention(model, name)
        torch.testing.assert_close(drawn(model, "jvp"), wanted, rtol=1e-9, atol=1e-9)
    set_attention(model, "auto")
    assert torch.equal(drawn(model, "jvp"), wanted)


def test_setting_refuses_at_once_and_changes_nothing() -> None:
    model = load_model("mnist")
    set_attention(model, "math")
    for name in ("cudnn", "xformers", "nope"):
        with pytest.raises(InputError, match="attention"):
            set_attention(model, name)
    assert model.net.attend.attention_backend == "math"
    with pytest.raises(InputError, match="Linear has no attention layer.*attention_backend"):
        set_attention(nn.Linear(2, 2), "math")


class Wrapper(nn.Module):
    """A network of diffusers inside the caller's own module."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.inner(x, t, return_dict=False)[0]


def legacy_unet() -> nn.Module:
    """A model of diffusers with the older processors."""
    from diffusers import UNet2DModel

    torch.manual_seed(1)
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(16, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        norm_num_groups=8,
    ).eval()


def test_older_diffusers_processors_are_replaced() -> None:
    pytest.importorskip("diffusers")
    model = Wrapper(legacy_unet())
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([5, 5])
    wanted = model(x, t)
    assert set_attention(model, "math") == 4  # one down, two up, one in the middle
    kinds = [type(m.processor).__name__ for m in model.modules() if hasattr(m, "processor")]
    assert kinds == ["AttnProcessor"] * 4
    torch.testing.assert_close(model(x, t), wanted)
    set_attention(model, "auto")
    assert torch.equal(model(x, t), wanted)
    with pytest.raises(InputError, match="UNet2DModel cannot be told 'flash'.*AttnProcessor2_0"):
        set_attention(model, "flash")


class Layer(nn.Module):
    """A newer attention layer of diffusers: its processor reads which backend to use."""

    def __init__(self) -> None:
        super().__init__()
        self.processor = SimpleNamespace(_attention_backend=None)

    def set_processor(self, processor: SimpleNamespace) -> None:
        self.processor = processor


class Newer(nn.Module):
    """What set_attention asks of a newer model of diffusers, with a kernel without tangents."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.layers = nn.ModuleList([Layer(), Layer()])

    def set_attention_backend(self, name: str) -> None:
        for layer in self.layers:
            layer.processor._attention_backend = name

    def told(self) -> set[str]:
        return {layer.processor._attention_backend for layer in self.layers}

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.scale * x + t


@pytest.mark.parametrize("package", PACKAGES)
def test_newer_diffusers_models_take_a_backend_and_packages_are_guarded(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, package)
    model = Newer()
    assert set_attention(model, "flash") == 2
    assert model.told() == {"_native_flash"}
    x = torch.ones(2)

    def tangent(name: str) -> Tensor:
        assert set_attention(model, name) == 2
        return torch.func.jvp(lambda s: model(s, t=x), (x,), (x,))[1]

    for _ in range(2):
        with pytest.raises(EstimatorError, match=f"{package}.*no forward derivative"):
            tangent(package)
    diffusers_name = {"xformers": "xformers", "flash_attn": "flash"}[package]
    assert model.told() == {diffusers_name}
    assert torch.equal(model(x, x), x + x)
    assert torch.equal(tangent("auto"), x)
    assert model.told() == {"native"}


def test_a_newer_model_of_diffusers_obeys() -> None:
    pytest.importorskip("diffusers")
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(2)
    model = FluxTransformer2DModel(
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        axes_dims_rope=(4, 4, 8),
    ).double()
    x = torch.randn(1, 5, 4, dtype=torch.float64)
    others: dict[str, Any] = {
        "encoder_hidden_states": torch.randn(1, 3, 8, dtype=torch.float64),
        "pooled_projections": torch.randn(1, 8, dtype=torch.float64),
        "timestep": torch.ones(1, dtype=torch.float64),
        "img_ids": torch.zeros(5, 3),
        "txt_ids": torch.zeros(3, 3),
        "return_dict": False,
    }
    wanted = model(x, **others)[0]
    try:
        for name in ("flash", "math"):
            assert set_attention(Wrapper(model), name) == 2
            torch.testing.assert_close(model(x, **others)[0], wanted, rtol=1e-9, atol=1e-9)
        # math was really taken: only it has a forward derivative
        _, tangent = torch.func.jvp(lambda y: model(y, **others)[0], (x,), (x,))
        step = 1e-2  # its norms compute in float32: a small step would see their rounding
        moved = model((1 + step) * x, **others)[0] - model((1 - step) * x, **others)[0]
        torch.testing.assert_close(tangent, moved / (2 * step), rtol=1e-2, atol=1e-3)
    finally:
        set_attention(model, "auto")  # the default of all models of diffusers in this process


def test_names_are_those_that_diffusers_knows() -> None:
    pytest.importorskip("diffusers")
    from diffusers.models import attention_processor
    from diffusers.models.attention_dispatch import AttentionBackendName

    known = {member.value for member in AttentionBackendName}
    assert set(attention_models._DIFFUSERS) == set(BACKENDS)
    assert set(attention_models._DIFFUSERS.values()) <= known
    assert all(hasattr(attention_processor, kind) for kind in attention_models._PROCESSORS.values())
