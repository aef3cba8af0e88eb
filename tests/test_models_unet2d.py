"""The colour U-Net: the paper's size, every input heard, its derivative, and its files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from test_models import scrambled
from torch import Tensor

from reg_engine.errors import InputError
from reg_engine.models import UNet2D, load_model
from reg_engine.schedules import EDM, Flow
from reg_engine.storage.weights import save_weights

pytest.importorskip("diffusers")

SMALL: dict[str, Any] = {
    "size": 8,
    "channels": 16,
    "multipliers": [1, 2],
    "blocks": 1,
    "attention": [4],
    "head_width": 16,
    "time_scale": 50.0,
}
DESCRIPTION: dict[str, Any] = {
    "architecture": "unet2d",
    "data": "cifar10",
    "arguments": SMALL,
    "prediction": "flow",
    "schedule": {"name": "flow"},
    "sigma_data": 0.5,
    "sample_shape": [3, 8, 8],
    "num_classes": 10,
    "null_cond": 10,
}


def small(**changes: Any) -> UNet2D:
    torch.manual_seed(0)  # the same weights at every call
    net = scrambled(UNet2D(**{**SMALL, **changes})).double().eval()
    assert isinstance(net, UNet2D)
    return net


def batch(rows: int) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(rows, 3, 8, 8, dtype=torch.float64)
    return x, torch.linspace(0.1, 1.0, rows, dtype=torch.float64), torch.arange(rows) % 11


def test_the_default_has_the_size_of_the_papers_network() -> None:
    with torch.device("meta"):
        net = UNet2D()
    count = sum(p.numel() for p in net.parameters())
    assert count == pytest.approx(34.10e6, rel=0.06)  # App. B.1; the rest is diffusers' blocks
    heads = [m.heads for m in net.modules() if hasattr(m, "heads")]
    assert heads == [4] * 6  # two going down and three up at 16x16, one in the middle


def test_a_new_network_answers_zero() -> None:
    torch.manual_seed(0)
    net = UNet2D(**SMALL)
    assert not net(
        *(part.to(torch.float32) if i < 2 else part for i, part in enumerate(batch(3)))
    ).any()


def test_every_input_matters_in_narrow_networks_too() -> None:
    """One channel a group would normalise time and label away; they are heard at every width."""
    for channels in (4, 16, 32):
        net = small(channels=channels, attention=[], head_width=4)
        x, t, cond = batch(2)
        base = net(x, t, cond)
        for changed in (net(x + 0.1, t, cond), net(x, t + 0.01, cond), net(x, t, cond + 1)):
            assert (changed - base).abs().amax((1, 2, 3)).min() > 1e-4


def test_rows_do_not_influence_each_other() -> None:
    x, t, cond = batch(4)
    net = small()
    together = net(x, t, cond)
    for row in range(4):
        part = slice(row, row + 1)
        alone = net(x[part], t[part], cond[part])
        torch.testing.assert_close(alone, together[part], rtol=1e-10, atol=1e-10)


def test_the_derivative_is_the_difference() -> None:
    net, (x, t, cond) = small(), batch(3)
    cotangent, direction, step = torch.randn_like(x), torch.randn_like(x), 1e-5
    value = x.clone().requires_grad_()
    (pulled,) = torch.autograd.grad(net(value, t, cond), value, cotangent)
    with torch.no_grad():
        ends = [net(x + sign * step * direction, t, cond) for sign in (1, -1)]
    found = (pulled * direction).sum((1, 2, 3))
    wanted = ((ends[0] - ends[1]) / (2 * step) * cotangent).sum((1, 2, 3))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)
    assert found.abs().min() > 1e-4


def test_without_labels_cond_is_not_looked_at() -> None:
    net, (x, t, cond) = small(num_labels=0), batch(2)
    assert torch.equal(net(x, t, cond), net(x, t)) and torch.equal(net(x, t, cond), net(x, t, None))


@pytest.mark.parametrize("prediction", ["flow", "edm"])
def test_a_saved_model_comes_back(prediction: str, tmp_path: Path) -> None:
    schedule = {"name": "flow"}
    if prediction == "edm":
        schedule = {"name": "edm", "sigma_min": 0.01, "sigma_max": 50.0}  # type: ignore[dict-item]
    path, net = tmp_path / "net.safetensors", small()
    description = {**DESCRIPTION, "prediction": prediction, "schedule": schedule}
    save_weights(path, net.state_dict(), description)
    model = load_model(path)
    assert (model.prediction, model.sample_shape) == (prediction, (3, 8, 8))
    assert model.schedule == (Flow() if prediction == "flow" else EDM(0.01, 50.0))
    for name, value in net.state_dict().items():
        assert torch.equal(model.modules[0].state_dict()[name], value.half().float()), name


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"schedule": {"name": "cosine"}}, "schedule: unknown name 'cosine'"),
        ({"schedule": {"name": "edm"}}, "incomplete"),
        ({"arguments": {**SMALL, "channels": 17}}, "fits no unet2d"),
        ({"arguments": {**SMALL, "size": 9}}, "fits no unet2d"),
        ({"architecture": "unet"}, "fits no unet"),
        ({"architecture": "transformer"}, "holds a 'transformer', not a 'unet' or 'unet2d'"),
    ],
)
def test_descriptions_that_do_not_fit(change: dict[str, Any], problem: str, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    metadata = {"reg_engine": json.dumps({**DESCRIPTION, **change})}
    save_file(small().float().state_dict(), path, metadata=metadata)
    with pytest.raises(InputError, match=problem):
        load_model(path)


def test_sizes_that_do_not_divide() -> None:
    with pytest.raises(InputError, match="channels: 130 times"):
        UNet2D(channels=130)
    with pytest.raises(InputError, match="size: 30 cannot be halved 3 times"):
        UNet2D(size=30)
    with pytest.raises(InputError, match="channels: 128 times .. with"):
        UNet2D(multipliers=())


def test_a_missing_diffusers_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers.models.unets.unet_2d", None)
    with pytest.raises(InputError, match=r"needs diffusers.*pip install 'reg-engine\[diffusers\]'"):
        UNet2D(**SMALL)
