"""The packaged weights: their budgets, and what they can do on real images."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import reg_engine
from reg_engine.calibration.damping import Damping
from reg_engine.cli import cli
from reg_engine.data.mnist import DATA_SETS, MNIST, load_data_set
from reg_engine.distillation import Teacher, differences
from reg_engine.guidance import Guidance
from reg_engine.metrics import label_agreement
from reg_engine.models import (
    PACKAGED,
    WEIGHTS,
    load_classifier,
    load_model,
    packaged_adapter,
    packaged_damping,
)
from reg_engine.networks.adapter import Adapter
from reg_engine.training.classification import accuracy

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("REG_ENGINE_DATA") or ROOT.parent / "shared" / "data")
# Clothes overlap: of their test images the judge reads 92 % right, of digits 99.5 %.
READ = {"mnist": 0.985, "fashion": 0.91}
NEAR = {"mnist": 0.68, "fashion": 0.66}  # of the distance without guidance, where 0 is the teacher
CLEAN = 5000  # test images that the classifier reads; all of them where there is time
UNGUIDED = {"mnist": 0.97, "fashion": 0.8}  # share of samples that are read as their label


@pytest.fixture(params=PACKAGED)
def name(request: pytest.FixtureRequest) -> str:
    """Of a packaged model and its classifier."""
    found: str = request.param
    return found


def images(name: str) -> MNIST:
    folder = DATA if DATA.is_dir() else DATA.parent
    if not (folder / DATA_SETS[name].file).exists():
        pytest.skip(f"needs {DATA_SETS[name].file}: set REG_ENGINE_DATA (looked in {folder})")
    return load_data_set(name, folder)


def test_budgets(name: str) -> None:
    model, judge = load_model(name).modules[0], load_classifier(name)
    for net, file, megabytes, parameters in (
        (model, f"{name}.safetensors", 3.0, 1_450_000),
        (judge, f"{name}_classifier.safetensors", 0.7, 300_000),
    ):
        assert (WEIGHTS / file).stat().st_size <= megabytes * 1e6
        assert sum(p.numel() for p in net.parameters()) <= parameters


def test_a_packaged_adapter_is_small_and_belongs_to_its_model(name: str) -> None:
    """And to no other; scale 1 is the model itself, bitwise."""
    model, adapter = load_model(name), Adapter.load(packaged_adapter(name))
    assert packaged_adapter(name).stat().st_size <= 300_000
    numbers = sum(p.numel() for p in adapter.change.parameters())
    assert numbers <= 0.05 * sum(p.numel() for p in model.modules[0].parameters())
    assert adapter.scales == (1.0, 8.0)
    assert adapter.about["teacher"] == f"damping={name},skip=0.15"
    student = model.with_adapter(packaged_adapter(name))
    other = next(each for each in PACKAGED if each != name)
    with pytest.raises(reg_engine.InputError, match="belongs to another model"):
        load_model(other).with_adapter(packaged_adapter(name))
    plain, same = (
        reg_engine.sample(one, torch.arange(4), scale=1.0, steps=3, progress=False).samples
        for one in (model, student)
    )
    assert torch.equal(plain, same)


@torch.no_grad()
def test_a_packaged_adapter_guides_as_its_teacher_does(name: str) -> None:
    """Its samples lie nearer to the teacher's than those without guidance do."""
    model, damping = load_model(name), Damping.load(packaged_damping(name))
    student = model.with_adapter(packaged_adapter(name))
    teacher = Teacher(model, lambda scale: Guidance(damping(scale, skip_below=0.15), rectify=None))
    labels, seeds = torch.arange(10), range(7000, 7010)
    for found in differences(student, teacher, labels, seeds, (2.0, 4.0, 8.0), steps=8):
        assert found.samples < NEAR[name], found
        assert found.evaluations == (8.0, 13.0)


def test_a_packaged_damping_is_what_calibrate_measures(name: str, tmp_path: Path) -> None:
    out = tmp_path / "damping.json"
    words = ["calibrate", "--model", name, "--damping", "rayleigh", "--solver", "dpmpp_2m"]
    words += ["--steps", "16", "--no-progress", "--out", str(out)]
    assert CliRunner().invoke(cli, words, catch_exceptions=False).exit_code == 0
    packaged, ours = Damping.load(packaged_damping(name)), Damping.load(out)
    assert packaged.levels == ours.levels and packaged.model == ours.model
    assert packaged.factors[0] == pytest.approx(ours.factors[0], rel=1e-3)


@pytest.mark.parametrize("count", [CLEAN, pytest.param(None, marks=pytest.mark.slow)])
def test_the_packaged_classifier_reads_clean_images(name: str, count: int | None) -> None:
    data = images(name).first(1, count)
    assert accuracy(load_classifier(name), data.test_images, data.test_labels) >= READ[name]


def test_the_packaged_model_and_classifier_agree_without_guidance(name: str) -> None:
    model, classifier = load_model(name), load_classifier(name)
    labels = torch.arange(100) % 10
    times = model.schedule.grid(18)
    x = times[0] * torch.randn(100, 1, 28, 28, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for now, after in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
            x = x + (after - now) * (x - model(x, now, labels)) / now
        guess = classifier(x, torch.zeros(100)).argmax(1)
    assert (guess == labels).float().mean() >= UNGUIDED[name] - 0.07  # 100 samples, 18 Euler steps
    assert x.abs().max() < 1.5


def test_the_packaged_model_denoises_the_test_set(name: str) -> None:
    """Less than half the error of the best affine denoiser that sees one pixel."""
    data, model = images(name), load_model(name)
    clean = torch.from_numpy(data.test_images[:100]).unsqueeze(1).float() / 127.5 - 1
    labels = torch.from_numpy(data.test_labels[:100])
    for sigma in (0.2, 0.5, 1.0, 2.0):
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            error = (model(clean + sigma * noise, sigma, labels) - clean).square().mean()
        affine = sigma**2 * model.sigma_data**2 / (sigma**2 + model.sigma_data**2)
        assert error < affine / 2, sigma


def agreement(name: str, scale: float) -> float:
    """Share of 1,000 samples by 18 Heun steps that the classifier reads as their label."""
    labels = torch.arange(1000) % 10
    out = reg_engine.sample(
        load_model(name), labels, scale=scale, rectify=None, steps=18, batch_size=50, progress=False
    )
    return label_agreement(load_classifier(name), out.samples, labels).share


@pytest.mark.slow
def test_agreement_under_guidance(name: str) -> None:
    assert agreement(name, 4.0) >= {"mnist": 0.995, "fashion": 0.97}[name]


@pytest.mark.slow
def test_agreement_without_guidance(name: str) -> None:
    assert agreement(name, 1.0) >= UNGUIDED[name]
