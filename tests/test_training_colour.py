"""Colour tasks: their losses against the papers, exact repeats, and the road to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import assert_same, weights
from torch import Tensor, nn

import reg_engine
from reg_engine.data.cifar10 import CIFAR10
from reg_engine.errors import InputError
from reg_engine.models import load_classifier, load_model
from reg_engine.schedules import EDM, Flow
from reg_engine.training import TrainConfig, Trainer, train_task
from reg_engine.training.classification import accuracy
from reg_engine.training.colour import ColourImages, ColourSettings, ColourTask
from reg_engine.training.colour_classifier import (
    ColourClassifierSettings,
    ColourClassifierTask,
    moved,
)

pytest.importorskip("diffusers")

NET = {"channels": 16, "multipliers": (1, 1), "blocks": 1, "attention": (), "head_width": 16}
CLASSIFIER = ColourClassifierSettings(
    channels=(16, 32), features=16, embedding=16, blocks=1, max_shift=1
)


def stripes(count: int, size: int = 16) -> tuple[Any, Any]:
    """Pictures whose colour is their label: (count, size, size, 3) uint8, labels 0-9."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 10
    shade = 128 + 100 * np.cos(2 * np.pi * (labels[:, None] / 10 + np.arange(3) / 3))
    images = shade[:, None, None] + rng.normal(0, 20, (count, size, size, 3))
    return images.clip(0, 255).astype(np.uint8), labels.astype(np.int64)


class Recorder(nn.Module):
    """A network that answers at random and remembers what it was asked."""

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        self.asked = (x, t, cond)
        self.answer = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        return self.answer


def clean(images: Any, x: Tensor) -> Tensor:
    """x_0 of each row, mirrored or not, whichever is nearer to x."""
    straight = torch.from_numpy(images).permute(0, 3, 1, 2).double() / 127.5 - 1
    both = torch.stack([straight, straight.flip(3)])
    nearer = (both - x).square().flatten(2).sum(2).argmin(0)
    return both[nearer, torch.arange(len(x))]


def test_the_flow_loss_is_that_of_rectified_flow() -> None:
    """|u - (eps - x_0)|^2 at x_t = (1 - t) x_0 + t eps, t uniform, a tenth of the labels hidden."""
    images, labels = stripes(1200)
    task, net = ColourTask(images, labels, ColourSettings(dropout=0.0)), Recorder()
    loss = task.loss(net, torch.arange(1200), torch.Generator().manual_seed(0))
    x, t, cond = net.asked
    time = t.double().reshape(-1, 1, 1, 1)
    x0 = clean(images, x / (1 - time))
    noise = (x - (1 - time) * x0) / time
    wanted = (net.answer - (noise - x0)).square().mean()
    assert float(loss) == pytest.approx(float(wanted), rel=1e-3)
    late = t > 0.5  # where the rounding of x does not drown the noise
    assert float(noise[late].std()) == pytest.approx(1, abs=0.02)
    sorted_t = t.sort().values
    slots = torch.arange(1200) / 1200
    assert bool(((sorted_t >= slots) & (sorted_t <= slots + 1 / 1200 + 1e-6)).all())
    hidden = cond == 10
    assert 0.07 < float(hidden.float().mean()) < 0.13
    assert torch.equal(cond[~hidden], torch.from_numpy(labels)[~hidden])


def test_the_edm_loss_is_equation_8_of_karras() -> None:
    images, labels = stripes(1200)
    task, net = ColourTask(images, labels, ColourSettings("edm", dropout=0.0)), Recorder()
    loss = task.loss(net, torch.arange(1200), torch.Generator().manual_seed(0))
    scaled, c_noise, _ = net.asked
    sigma, s = (4 * c_noise.double()).exp().reshape(-1, 1, 1, 1), task.sigma_data
    x = scaled * (sigma**2 + s**2).sqrt()
    x0 = clean(images, x)
    skip, out = s**2 / (sigma**2 + s**2), sigma * s / (sigma**2 + s**2).sqrt()
    weight = (sigma**2 + s**2) / (sigma * s) ** 2
    wanted = (weight * (skip * x + out * net.answer - x0) ** 2).mean()
    assert float(loss) == pytest.approx(float(wanted), rel=1e-2)
    assert float(sigma.log().mean()) == pytest.approx(-1.2, abs=0.01)
    assert float(sigma.log().std()) == pytest.approx(1.2, abs=0.01)


def test_half_of_the_images_are_mirrored_and_the_deviation_is_theirs() -> None:
    images, labels = stripes(400)
    task = ColourImages(images, labels, "cpu")
    assert task.sigma_data == pytest.approx(float((images / 127.5).std()), rel=1e-6)
    x0, found = task.batch(torch.arange(400), torch.Generator().manual_seed(0))
    straight = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    kept = (x0 == straight).flatten(1).all(1)
    turned = (x0 == straight.flip(3)).flatten(1).all(1)
    assert bool((kept ^ turned).all()) and 160 < int(turned.sum()) < 240
    assert torch.equal(found, torch.from_numpy(labels))
    with pytest.raises(InputError, match=r"images: are uint8 \(4, 8, 8\)"):
        ColourImages(images[:4, :8, :8, 0], labels, "cpu")


def test_shifts_repeat_the_edge() -> None:
    image = torch.rand(1, 2, 5, 6)
    found = moved(image.expand(300, -1, -1, -1), 1, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1), mode="replicate")[0]
    allowed = [padded[:, r : r + 5, c : c + 6] for r in range(3) for c in range(3)]
    counts = [sum(torch.equal(one, wanted) for one in found) for wanted in allowed]
    assert sum(counts) == 300 and min(counts) > 10


def trainer(folder: Path, dropout: float = 0.5) -> Trainer:
    settings = ColourSettings(dropout=dropout, **NET)  # type: ignore[arg-type]
    task = ColourTask(*stripes(40), settings)
    config = TrainConfig(steps=4, batch_size=4, warmup=1, seed=3)
    return Trainer(task, config, folder, show=False)


def test_a_resumed_run_is_bitwise_the_uninterrupted_one_with_dropout(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole")
    assert whole.run()
    trainer(tmp_path / "parts").run(until=2)
    torch.manual_seed(99)  # what another program drew in between does not matter
    resumed = trainer(tmp_path / "parts")
    assert resumed.step == 2 and resumed.run()
    assert_same(weights(whole), weights(resumed))
    other = trainer(tmp_path / "other", dropout=0.0)
    other.run()
    assert any(
        not torch.equal(a, b)
        for a, b in zip(weights(whole).values(), weights(other).values(), strict=True)
    )


@pytest.fixture(scope="module")
def data() -> CIFAR10:
    images, labels = stripes(200)
    return CIFAR10(images[:160], labels[:160], images[160:], labels[160:])


@pytest.mark.parametrize("name", ["cifar10", "cifar10-edm"])
def test_a_trained_model_is_exported_loads_and_samples(
    name: str, data: CIFAR10, tmp_path: Path
) -> None:
    prediction = "edm" if name.endswith("edm") else "flow"
    settings = ColourSettings(prediction, **NET)  # type: ignore[arg-type]
    run = train_task(name, data, tmp_path, settings=settings, epochs=0.05, batch_size=4, show=False)
    assert run.finished and run.task == name and run.scores == {}
    model = load_model(run.weights or "")
    assert model.prediction == prediction and model.sample_shape == (3, 16, 16)
    assert isinstance(model.schedule, EDM if prediction == "edm" else Flow)
    assert (model.num_classes, model.null_cond) == (10, 10)
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert checkpoint["task"] == name
    for key, value in model.modules[0].state_dict().items():
        assert torch.equal(value, checkpoint["average"][key].half().float())
    out = reg_engine.sample(model, [3, 7], scale=2.0, rectify="vjp", steps=2, progress=False)
    assert out.images.shape == (2, 16, 16, 3) and bool(out.samples.isfinite().all())


def test_the_command_trains_on_colour_data(data: CIFAR10, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from reg_engine.cli import cli

    large = [
        np.pad(part, ((0, 0), (8, 8), (8, 8), (0, 0))) for part in (data.train_images[:8],) * 2
    ]
    names = {"x_train": large[0], "x_test": large[1]}
    labels = {f"y_{part}": data.train_labels[:8] for part in ("train", "test")}
    np.savez(tmp_path / "cifar10.npz", **names, **labels)
    words = ["train", "cifar10-classifier", "--data", str(tmp_path), "--batch-size", "4"]
    words += ["--epochs", "0.5", "--out", str(tmp_path / "run"), "--json", "--no-progress"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert '"task": "cifar10-classifier"' in done.output and '"test_accuracy"' in done.output
    assert load_classifier(tmp_path / "run" / "cifar10_classifier.safetensors").num_classes == 10
    words = ["train", "cifar10", "--data", str(tmp_path / "none.tar.gz"), "--out", str(tmp_path)]
    missing = CliRunner().invoke(cli, words)
    assert missing.exit_code != 0 and "there is no" in str(missing.exception)


def test_flow_and_edm_runs_do_not_mix(data: CIFAR10, tmp_path: Path) -> None:
    flow = ColourSettings(**NET)  # type: ignore[arg-type]
    train_task("cifar10", data, tmp_path, settings=flow, epochs=0.02, batch_size=4, show=False)
    edm = ColourSettings("edm", **NET)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="task 'cifar10' .now 'cifar10-edm'"):
        train_task(
            "cifar10-edm", data, tmp_path, settings=edm, epochs=0.02, batch_size=4, show=False
        )
    with pytest.raises(InputError, match="prediction: unknown name 'epsilon'"):
        ColourSettings("epsilon")


def test_the_flow_learns_the_colour_of_a_label(tmp_path: Path) -> None:
    """Samples of two labels have those labels' shades: the label reaches the network's output."""
    images, labels = stripes(64, size=8)
    labels = labels % 2
    images = np.where((labels == 0)[:, None, None, None], images // 4, 255 - images // 4)
    settings = ColourSettings(dropout=0.0, **NET)  # type: ignore[arg-type]
    data = CIFAR10(images.astype(np.uint8), labels, images.astype(np.uint8), labels)
    run = train_task(
        "cifar10",
        data,
        tmp_path,
        settings=settings,
        epochs=50.0,
        batch_size=32,
        lr=3e-3,
        warmup=10,
        show=False,
    )
    model = load_model(run.weights or "")
    out = reg_engine.sample(
        model, [0] * 4 + [1] * 4, scale=1.0, solver="flow_euler", steps=8, progress=False
    )
    means = out.samples.mean((1, 2, 3))
    assert float(means[:4].max()) < -0.3 and float(means[4:].min()) > 0.3


def test_the_classifier_learns_colours_and_hears_noise(tmp_path: Path) -> None:
    images, labels = stripes(300)
    task = ColourClassifierTask(images[:200], labels[:200], CLASSIFIER)
    config = TrainConfig(steps=60, batch_size=32, lr=1e-2, warmup=5)
    run = Trainer(task, config, tmp_path, show=False)
    before = accuracy(run.net, images[200:], labels[200:])
    assert run.run()
    from reg_engine.training.tasks import export

    path = export(run, task, tmp_path / "net.safetensors")
    found = load_classifier(path)
    assert before < 0.4 and accuracy(found, images[200:], labels[200:]) > 0.8
    assert found.arguments["image_channels"] == 3


def test_the_classifier_sees_clean_and_noisy_pictures() -> None:
    images, labels = stripes(1200)
    seen = {}

    class Ear(nn.Module):
        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            seen["x"], seen["sigma"] = x, sigma
            return torch.zeros(len(x), 10)

    settings = ColourClassifierSettings(max_shift=0)
    task = ColourClassifierTask(images, labels, settings)
    loss = task.loss(Ear(), torch.arange(1200), torch.Generator().manual_seed(0))
    assert float(loss) == pytest.approx(np.log(10), rel=1e-6)
    x, sigma = seen["x"], seen["sigma"]
    quiet = sigma == 0
    assert 0.45 < float(quiet.float().mean()) < 0.55
    x0 = clean(images, x)
    torch.testing.assert_close(x[quiet].double(), x0[quiet], rtol=0, atol=1e-6)
    loud = (sigma > 0) & (sigma < 1)  # where the nearer picture is the right one
    noise = ((x - x0) / sigma.double().reshape(-1, 1, 1, 1))[loud]
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
    assert float(sigma[~quiet].min()) >= 0.002 and float(sigma.max()) <= 80


@pytest.mark.gpu
@pytest.mark.parametrize("prediction", ["flow", "edm"])
def test_on_a_gpu_a_step_draws_the_same_again(prediction: str, tmp_path: Path) -> None:
    settings = ColourSettings(prediction, **NET)  # type: ignore[arg-type]
    task = ColourTask(*stripes(64), settings, "cuda")
    asked = []
    for seed in (5, 5, 6):
        net = Recorder()
        net.to("cuda")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(net, "forward", lambda x, t, cond: asked.append((x, t, cond)) or x)
            task.loss(net, torch.arange(32), torch.Generator().manual_seed(seed))
    assert all(torch.equal(one, same) for one, same in zip(asked[0], asked[1], strict=True))
    assert not torch.equal(asked[0][0], asked[2][0]) and asked[0][0].is_cuda
    config = TrainConfig(steps=3, batch_size=8, warmup=1, dtype="bfloat16")
    assert Trainer(task, config, tmp_path, device="cuda", show=False).run()
