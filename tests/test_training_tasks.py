"""The tasks: their losses against the papers, and the road from data to a loadable model."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import SETTINGS, digits
from torch import Tensor, nn

import reg_engine.training.trainer as trainer_module
from reg_engine.data.mnist import MNIST
from reg_engine.errors import InputError
from reg_engine.models import data_of, load_classifier, load_model
from reg_engine.training import TASKS, TrainConfig, Trainer, train_task
from reg_engine.training.classification import (
    ClassifierSettings,
    ClassifierTask,
    accuracy,
    shifted,
)
from reg_engine.training.diffusion import DiffusionTask
from reg_engine.training.tasks import export, plan_steps

ROOT = Path(__file__).resolve().parent.parent

# Losses


class Recorder(nn.Module):
    """A network that answers at random and remembers what it was asked."""

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        self.asked = (x, t, cond)
        self.answer = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        return self.answer


def test_the_diffusion_loss_is_equation_8_of_karras() -> None:
    """lambda(sigma) |D(x_0 + n; sigma) - x_0|^2 with the preconditioning of their Table 1."""
    images, labels = digits()
    task, net, indices = DiffusionTask(images, labels), Recorder(), torch.arange(1600)
    loss = task.loss(net, indices, torch.Generator().manual_seed(0))
    scaled, c_noise, cond = net.asked
    assert cond is not None
    sigma, s = (4 * c_noise.double()).exp().reshape(-1, 1, 1, 1), task.sigma_data
    assert s == pytest.approx(float((images / 127.5).std()))
    x0 = torch.from_numpy(images[:1600]).unsqueeze(1).double() / 127.5 - 1
    x = scaled * (sigma**2 + s**2).sqrt()
    skip, out = s**2 / (sigma**2 + s**2), sigma * s / (sigma**2 + s**2).sqrt()
    weight = (sigma**2 + s**2) / (sigma * s) ** 2
    wanted = (weight * (skip * x + out * net.answer - x0) ** 2).mean()
    assert float(loss) == pytest.approx(float(wanted), rel=1e-4)
    # what was drawn: unit noise, the log-normal law of sigma, a tenth of the labels hidden
    noise = (x - x0) / sigma
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
    assert float(sigma.log().mean()) == pytest.approx(-0.4, abs=0.01)
    assert float(sigma.log().std()) == pytest.approx(1.2, abs=0.01)
    hidden = cond == 10
    assert 0.07 < float(hidden.float().mean()) < 0.13
    assert torch.equal(cond[~hidden], torch.from_numpy(labels[:1600])[~hidden])


def test_the_classifier_hears_clean_and_noisy_digits() -> None:
    images, labels = digits()
    net = Recorder()
    task = ClassifierTask(images, labels, ClassifierSettings(max_shift=0))
    with pytest.raises((RuntimeError, ValueError)):  # the recorder's answer is no row of logits
        task.loss(net, torch.arange(1600), torch.Generator().manual_seed(0))
    x, sigma, _ = net.asked
    clean = sigma == 0
    assert 0.45 < float(clean.float().mean()) < 0.55
    x0 = torch.from_numpy(images[:1600]).unsqueeze(1).float() / 127.5 - 1
    assert torch.equal(x[clean], x0[clean])
    noise = ((x - x0) / sigma.reshape(-1, 1, 1, 1))[~clean]
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
    assert 0.002 <= sigma[~clean].min() < 0.1 and 5 < sigma.max() <= 80


def test_shifts_move_whole_images() -> None:
    image = torch.rand(1, 1, 5, 6) * 2 - 1
    moved = shifted(image.expand(200, -1, -1, -1), 1, torch.Generator().manual_seed(0))
    padded = torch.full((7, 8), -1.0)
    padded[1:6, 1:7] = image[0, 0]
    allowed = [padded[r : r + 5, c : c + 6] for r in range(3) for c in range(3)]
    counts = [sum(torch.equal(one[0], wanted) for one in moved) for wanted in allowed]
    assert sum(counts) == 200 and min(counts) > 5
    assert torch.equal(shifted(image, 0, torch.Generator()), image)


# From data to a model


@pytest.fixture
def data() -> MNIST:
    """28x28 stand-ins: real digits, enlarged three times and framed."""
    images, labels = digits()
    large = np.pad(images.repeat(3, 1).repeat(3, 2), ((0, 0), (2, 2), (2, 2)))
    return MNIST(large[:1500], labels[:1500], large[1500:], labels[1500:])


def test_a_trained_model_is_exported_and_loads(data: MNIST, tmp_path: Path) -> None:
    run = train_task("mnist", data, tmp_path, epochs=0.03, batch_size=16, show=False)
    assert run.finished and run.step == run.steps == 3
    model = load_model(run.weights or "")
    assert model.sigma_data == pytest.approx(float((data.train_images / 127.5).std()))
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    for name, value in model.modules[0].state_dict().items():
        assert torch.equal(value, checkpoint["average"][name].half().float())


@pytest.mark.parametrize("task", ["mnist", "fashion"])
def test_the_weights_say_what_they_were_trained_on(task: str, data: MNIST, tmp_path: Path) -> None:
    """The classifier of a data set finds the models of the same one by that."""
    options: dict[str, Any] = {"epochs": 0.01, "batch_size": 8, "show": False}
    for name, file in ((task, task), (f"{task}-classifier", f"{task}_classifier")):
        run = train_task(name, data, tmp_path / name, **options)
        assert run.task == name and run.weights == str(tmp_path / name / f"{file}.safetensors")
        assert data_of(run.weights) == task
        other = {"mnist": "fashion", "fashion": "mnist"}[task] + name.removeprefix(task)
        with pytest.raises(InputError, match=f"task '{name}' \\(now '{other}'\\)"):
            train_task(other, data, tmp_path / name, **options)
    assert load_model(tmp_path / task / f"{task}.safetensors").num_classes == 10


@pytest.mark.parametrize(
    ("task", "file"),
    [
        ("mnist", "mnist.npz"),
        ("mnist-classifier", "mnist.npz"),
        ("fashion", "fashion_mnist.npz"),
        ("fashion-classifier", "fashion_mnist.npz"),
    ],
)
def test_a_task_reads_its_own_data_set(task: str, file: str, data: MNIST, tmp_path: Path) -> None:
    for shift, name in enumerate(("mnist.npz", "fashion_mnist.npz")):
        x, y = data.test_images[shift : shift + 20], data.test_labels[shift : shift + 20]
        np.savez(tmp_path / name, x_train=x, y_train=y, x_test=x, y_test=y)
    found = TASKS[task].load(tmp_path)
    assert np.array_equal(found.train_images, np.load(tmp_path / file)["x_train"])
    (other,) = {"mnist.npz", "fashion_mnist.npz"} - {file}
    with pytest.raises(InputError, match="data: .* is (Fashion-)?MNIST, not (Fashion-)?MNIST"):
        TASKS[task].load(tmp_path / other)


def test_the_classifier_learns_real_digits(tmp_path: Path) -> None:
    images, labels = digits()
    settings = ClassifierSettings(channels=(32, 48), max_shift=0)
    task = ClassifierTask(images[:1500], labels[:1500], settings)
    config = TrainConfig(steps=250, batch_size=64, lr=4e-3, warmup=20)
    trainer = Trainer(task, config, tmp_path, show=False)
    before = accuracy(trainer.net, images[1500:], labels[1500:])
    assert trainer.run()
    path = export(trainer, task, tmp_path / "net.safetensors")
    assert before < 0.3 and accuracy(load_classifier(path), images[1500:], labels[1500:]) > 0.8


def begin(data: MNIST, folder: Path, steps: int, until: int) -> None:
    task = DiffusionTask(data.train_images, data.train_labels)
    Trainer(task, TrainConfig(steps=steps, batch_size=8), folder, show=False).run(until)


def test_an_unfinished_run_is_exported_on_request(data: MNIST, tmp_path: Path) -> None:
    begin(data, tmp_path, steps=50, until=2)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    run = train_task("mnist", data, tmp_path, export_now=True, show=False)
    assert (run.finished, run.step, run.steps) == (False, 2, 50)
    assert load_model(run.weights or "").num_classes == 10
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_minutes_become_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            self.now += 0.5
            return self.now

    monkeypatch.setattr(trainer_module, "time", Clock())  # a step takes half a second
    task, config = DiffusionTask(*digits(), SETTINGS), TrainConfig(steps=1, batch_size=2)
    assert plan_steps(task, config, "cpu", 1.0, minutes=3.0) == 360
    assert plan_steps(task, config, "cpu", 1.5, None) == math.ceil(1.5 * 1797 / 2)


def test_a_run_by_minutes_goes_on_with_the_steps_it_began_with(data: MNIST, tmp_path: Path) -> None:
    begin(data, tmp_path, steps=3, until=1)
    run = train_task("mnist", data, tmp_path, minutes=500, batch_size=8, show=False)
    assert run.finished and run.steps == 3


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("mnits", {}, "task: unknown name 'mnits'. Did you mean 'mnist'"),
        ("mnist", {"epochs": 1.0, "minutes": 1.0}, "minutes: is given together with epochs"),
        ("mnist", {"epochs": 0.0}, "epochs: is 0.0"),
        ("mnist", {"minutes": -1.0}, "minutes: is -1.0"),
        ("mnist", {"export_now": True}, "export: there is no .*checkpoint.pt"),
        ("mnist", {"batch_size": 0}, "batch_size: is 0"),
    ],
)
def test_tasks_that_cannot_start(
    name: str, options: dict[str, Any], problem: str, data: MNIST, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=problem):
        train_task(name, data, tmp_path, show=False, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device(data: MNIST, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="device: 'cuda' cannot be used"):
        train_task("mnist", data, tmp_path, device="cuda", show=False)


def test_the_command(data: MNIST, tmp_path: Path) -> None:
    np.savez(
        tmp_path / "mnist.npz",
        x_train=data.train_images,
        y_train=data.train_labels,
        x_test=data.test_images,
        y_test=data.test_labels,
    )
    command = [
        sys.executable,
        "-m",
        "reg_engine.cli",
        "train",
        "mnist-classifier",
        "--data",
        str(tmp_path / "mnist.npz"),
        "--out",
        str(tmp_path / "run"),
        "--epochs",
        "0.05",
        "--json",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert '"finished": true' in done.stdout and '"test_accuracy"' in done.stdout
    assert "step 1 of 1" in done.stderr
    helped = subprocess.run([*command[:4], "--help"], cwd=ROOT, capture_output=True, text=True)
    assert "Example: reg-engine train mnist" in " ".join(helped.stdout.split())
