"""The packaged models: budgets, derivatives, quality; and the files that must be refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_runs import Bomb
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from reg_engine.errors import InputError
from reg_engine.models import (
    PACKAGED,
    UNet,
    classifier_for,
    data_of,
    load_classifier,
    load_model,
)
from reg_engine.models.classifier import NoisyClassifier
from reg_engine.storage.weights import save_weights

DESCRIPTION: dict[str, Any] = {
    "architecture": "unet",
    "data": "mnist",
    "prediction": "edm",
    "sigma_data": 0.6,
    "arguments": {"channels": [16, 32], "heads": 2, "embedding": 16},
    "schedule": {"name": "edm", "sigma_min": 0.002, "sigma_max": 80.0},
    "sample_shape": [1, 28, 28],
    "num_classes": 10,
    "null_cond": 10,
}


def scrambled(net: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter a random value, those that start at zero too."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        width = parameter[0].numel() if parameter.ndim > 1 else 9
        with torch.no_grad():
            parameter.add_(torch.randn(parameter.shape, generator=generator) / width**0.5)
    return net


def small_unet() -> UNet:
    torch.manual_seed(0)  # the same weights at every call
    net = scrambled(UNet(**DESCRIPTION["arguments"]))
    assert isinstance(net, UNet)
    return net


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    save_weights(path, small_unet().state_dict(), DESCRIPTION)
    return path


# Files


def test_a_saved_model_comes_back(saved: Path) -> None:
    model = load_model(saved)
    assert (model.prediction, model.sigma_data, model.null_cond) == ("edm", 0.6, 10)
    assert (model.sample_shape, model.num_classes) == ((1, 28, 28), 10)
    assert model.schedule.grid(18)[0] == 80.0
    assert model.dtype == torch.float32 and not any(m.training for m in model.modules)
    wanted = small_unet()
    for name, value in wanted.state_dict().items():
        assert torch.equal(model.modules[0].state_dict()[name], value.half().float()), name


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.CKPT", "net.pkl", "net.safetensors"])
def test_a_pickle_is_refused_and_not_run(name: str, tmp_path: Path) -> None:
    path, mark = tmp_path / name, tmp_path / "exploded"
    torch.save(Bomb(mark), path)
    for load in (load_model, load_classifier, classifier_for):
        with pytest.raises(InputError, match="pickle|damaged or no safetensors"):
            load(path)
    assert not mark.exists()


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(kept: int, saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(InputError, match="damaged"):
        load_model(saved)


def test_a_corrupt_header_is_refused(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[20:40] = os.urandom(20)
    saved.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        load_model(saved)


def change_nothing(weights: dict[str, Tensor]) -> None:
    pass


def drop(weights: dict[str, Tensor]) -> None:
    del weights["stem.weight"]


def add(weights: dict[str, Tensor]) -> None:
    weights["extra"] = torch.zeros(2)


def reshape(weights: dict[str, Tensor]) -> None:
    weights["stem.bias"] = torch.zeros(17)


def poison(weights: dict[str, Tensor]) -> None:
    weights["stem.bias"][3] = torch.nan


@pytest.mark.parametrize(
    ("change", "description", "problem"),
    [
        (drop, {}, "missing stem.weight"),
        (add, {}, "unknown extra"),
        (reshape, {}, r"stem.bias .* \(17,\), the network has \(16,\)"),
        (poison, {}, "stem.bias .* NaN or Inf"),
        (change_nothing, None, "does not say what network"),
        (change_nothing, {"architecture": "classifier"}, "holds a 'classifier', not a 'unet'"),
        (change_nothing, {"arguments": {"channels": [16, 33]}}, "fits no unet"),
        (change_nothing, {"arguments": {"colour": 3}}, "fits no unet"),
        (change_nothing, {"arguments": {"channels": [32, 32]}}, "the network has"),
        (change_nothing, {"schedule": None}, "incomplete"),
        (change_nothing, {"prediction": "noise"}, "prediction: unknown name 'noise'"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    change: Callable[..., None], description: dict[str, Any] | None, problem: str, tmp_path: Path
) -> None:
    weights = small_unet().state_dict()
    change(weights)
    path = tmp_path / "net.safetensors"
    metadata = None
    if description is not None:
        metadata = {"reg_engine": json.dumps({**DESCRIPTION, **description})}
    save_file(weights, path, metadata=metadata)
    with pytest.raises(InputError, match=problem):
        load_model(path)


@pytest.mark.parametrize("text", ["{", "[1, 2]"])
def test_a_damaged_description_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={"reg_engine": text})
    with pytest.raises(InputError, match="description"):
        load_model(path)


def test_unknown_names_and_missing_files(tmp_path: Path) -> None:
    for load in (load_model, load_classifier, classifier_for):
        with pytest.raises(InputError, match="unknown model 'minst'.*Packaged: mnist, fashion"):
            load("minst")
        with pytest.raises(InputError, match="there is no file"):
            load(tmp_path / "net.safetensors")


def test_weights_that_float16_cannot_hold_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="big is not finite in float16"):
        save_weights(tmp_path / "a.safetensors", {"big": torch.tensor([1e6])}, DESCRIPTION)
    assert list(tmp_path.iterdir()) == []


def test_who_judges_a_model(saved: Path, tmp_path: Path) -> None:
    assert isinstance(classifier_for("mnist"), NoisyClassifier)
    assert isinstance(classifier_for(saved), NoisyClassifier)  # its description says MNIST
    other = tmp_path / "other.safetensors"
    save_weights(other, small_unet().state_dict(), {**DESCRIPTION, "data": "letters"})
    assert classifier_for(other) is None


def test_the_judge_is_that_of_the_data_set(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name, or by the "data" of a file's description."""
    for number, name in enumerate(PACKAGED):
        net = scrambled(NoisyClassifier((16, 32)), seed=number)
        about = {"architecture": "classifier", "arguments": {"channels": [16, 32]}, "data": name}
        save_weights(tmp_path / f"{name}_classifier.safetensors", net.state_dict(), about)
        save_weights(
            tmp_path / f"{name}.safetensors",
            small_unet().state_dict(),
            {**DESCRIPTION, "data": name},
        )
    monkeypatch.setattr("reg_engine.models.WEIGHTS", tmp_path)
    own = {name: load_classifier(name).head.weight for name in PACKAGED}
    assert not torch.equal(own["mnist"], own["fashion"])
    for name in PACKAGED:
        assert load_model(name).num_classes == 10 and data_of(name) == name
        for model in (name, tmp_path / f"{name}.safetensors"):
            judge = classifier_for(model)
            assert judge is not None and torch.equal(judge.head.weight, own[name])
    del about["data"]
    save_weights(tmp_path / "silent.safetensors", net.state_dict(), about)
    assert data_of(tmp_path / "silent.safetensors") is None


# Networks


def batch(rows: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(rows, 1, 28, 28, dtype=dtype)
    return x, torch.linspace(-1.5, 1.0, rows, dtype=dtype), torch.arange(rows) % 11


def test_forward_and_reverse_derivatives_agree() -> None:
    net = small_unet().double()
    x, t, cond = batch(3)
    tangent, cotangent = torch.randn_like(x), torch.randn_like(x)

    def call(value: Tensor) -> Tensor:
        return net(value, t, cond)

    with sdpa_kernel(SDPBackend.MATH):
        _, pushed = torch.func.jvp(call, (x,), (tangent,))
        _, pull = torch.func.vjp(call, x)
        step = 1e-5
        difference = (call(x + step * tangent) - call(x - step * tangent)) / (2 * step)
    (pulled,) = pull(cotangent)
    rows = pushed.mul(cotangent).sum((1, 2, 3))
    torch.testing.assert_close(rows, pulled.mul(tangent).sum((1, 2, 3)), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(pushed, difference, rtol=1e-6, atol=1e-7)
    assert rows.abs().min() > 1e-3  # the comparison is of something


def test_rows_do_not_influence_each_other() -> None:
    x, t, cond = batch(6)
    net, classifier = small_unet().double(), scrambled(NoisyClassifier()).double()
    together = net(x, t, cond), classifier(x, t.exp())
    for row in range(6):
        part = slice(row, row + 1)
        alone = net(x[part], t[part], cond[part]), classifier(x[part], t[part].exp())
        for one, all_rows in zip(alone, together, strict=True):
            torch.testing.assert_close(one, all_rows[part], rtol=1e-10, atol=1e-10)


def test_every_input_matters() -> None:
    x, t, cond = batch(2)
    net = small_unet().double()
    base = net(x, t, cond)
    for changed in (net(x + 0.1, t, cond), net(x, t + 0.01, cond), net(x, t, cond + 1)):
        assert (changed - base).abs().amax((1, 2, 3)).min() > 1e-4


def test_classifier_at_no_noise_and_its_gradient() -> None:
    net = scrambled(NoisyClassifier(sigma_data=0.6)).double()
    x = torch.randn(3, 1, 28, 28, dtype=torch.float64, requires_grad=True)
    sigma = torch.tensor([0.0, 0.5, 80.0], dtype=torch.float64)
    chosen = net(x, sigma).log_softmax(1)[:, 4]
    (gradient,) = torch.autograd.grad(chosen.sum(), x)
    assert gradient.isfinite().all() and gradient.abs().amax((1, 2, 3)).min() > 0
    direction, step = torch.randn_like(x), 1e-5
    with torch.no_grad():
        ends = [net(x + s * direction, sigma).log_softmax(1)[:, 4] for s in (step, -step)]
    wanted = (ends[0] - ends[1]) / (2 * step)
    found = (gradient * direction).sum((1, 2, 3))
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)
    features = net.features(x)
    torch.testing.assert_close(net.head(features), net(x, torch.zeros(3)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("channels", [(16, 24), (20, 32), (16, 48)])
def test_widths_that_do_not_divide(channels: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="channels: is"):
        UNet(channels=channels, heads=5)


# What is packaged
