"""The packaged weights: their budgets, and what they can do on real digits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import reg_engine
from reg_engine.data.mnist import MNIST, load_mnist
from reg_engine.metrics import label_agreement
from reg_engine.models import load_classifier, load_model
from reg_engine.training.classification import accuracy

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "reg_engine" / "models" / "weights"
DATA = Path(os.environ.get("REG_ENGINE_DATA") or ROOT.parent / "shared" / "data" / "mnist.npz")


@pytest.mark.parametrize(
    ("file", "megabytes", "parameters"),
    [("mnist.safetensors", 3.0, 1_450_000), ("mnist_classifier.safetensors", 0.7, 300_000)],
)
def test_budgets(file: str, megabytes: float, parameters: int) -> None:
    assert (WEIGHTS / file).stat().st_size <= megabytes * 1e6
    net = load_classifier() if "classifier" in file else load_model().modules[0]
    assert sum(p.numel() for p in net.parameters()) <= parameters


def mnist() -> MNIST:
    if not DATA.exists():
        pytest.skip(f"needs MNIST: set REG_ENGINE_DATA (looked for {DATA})")
    return load_mnist(DATA)


def test_the_packaged_classifier_reads_clean_digits() -> None:
    data = mnist()
    assert accuracy(load_classifier(), data.test_images, data.test_labels) >= 0.985


def test_the_packaged_model_and_classifier_agree_without_guidance() -> None:
    model, classifier = load_model(), load_classifier()
    labels = torch.arange(100) % 10
    times = model.schedule.grid(18)
    x = times[0] * torch.randn(100, 1, 28, 28, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for now, after in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
            x = x + (after - now) * (x - model(x, now, labels)) / now
        guess = classifier(x, torch.zeros(100)).argmax(1)
    assert (guess == labels).float().mean() >= 0.9
    assert x.abs().max() < 1.5


def test_the_packaged_model_denoises_the_test_set() -> None:
    """Less than half the error of the best affine denoiser that sees one pixel."""
    data, model = mnist(), load_model()
    images = torch.from_numpy(data.test_images[:100]).unsqueeze(1).float() / 127.5 - 1
    labels = torch.from_numpy(data.test_labels[:100])
    for sigma in (0.2, 0.5, 1.0, 2.0):
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            error = (model(images + sigma * noise, sigma, labels) - images).square().mean()
        affine = sigma**2 * model.sigma_data**2 / (sigma**2 + model.sigma_data**2)
        assert error < affine / 2, sigma


def agreement(scale: float) -> float:
    """Share of 1,000 samples by 18 Heun steps that the classifier reads as their label."""
    labels = torch.arange(1000) % 10
    out = reg_engine.sample(
        load_model(), labels, scale=scale, rectify=None, steps=18, batch_size=50, progress=False
    )
    return label_agreement(load_classifier(), out.samples, labels).share


@pytest.mark.slow
def test_agreement_under_guidance() -> None:
    assert agreement(4.0) >= 0.995


@pytest.mark.slow
def test_agreement_without_guidance() -> None:
    assert agreement(1.0) >= 0.97
