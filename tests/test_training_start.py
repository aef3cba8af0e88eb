"""Going on from weights: they are the first state, and a run says which ones it began with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import SETTINGS, digits, tiny

from reg_engine.data.mnist import MNIST
from reg_engine.errors import InputError
from reg_engine.storage.weights import read
from reg_engine.training import TrainConfig, Trainer, train_task
from reg_engine.training.diffusion import DiffusionTask
from reg_engine.training.tasks import export


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported weights of a short run."""
    trainer = tiny(tmp_path_factory.mktemp("first"), steps=12)
    trainer.run()
    return export(trainer, trainer.task, trainer.folder / "tiny.safetensors")


def second(folder: Path, weights: Path, **numbers: object) -> Trainer:
    config = TrainConfig(**{"steps": 12, "batch_size": 32, "warmup": 5, "start": "a", **numbers})
    values = {name: v.float() for name, v in read(weights)[0].items()}
    task = DiffusionTask(*digits(), replace(SETTINGS, log_sigma_mean=config.noise_mean))
    return Trainer(task, config, folder, show=False, start=values)


def test_weights_are_the_first_state_of_network_and_average(first: Path, tmp_path: Path) -> None:
    trainer = second(tmp_path, first)
    wanted = read(first)[0]
    assert wanted.keys() == trainer.net.state_dict().keys()
    for name, value in wanted.items():
        assert torch.equal(trainer.net.state_dict()[name], value.float()), name
        assert torch.equal(trainer.average.state[name], value.float()), name


def test_a_resumed_run_keeps_its_own_weights_and_refuses_others(
    first: Path, tmp_path: Path
) -> None:
    trainer = second(tmp_path, first)
    trainer.run(until=5)
    again = second(tmp_path, first)
    assert again.step == 5
    for name, value in trainer.net.state_dict().items():
        assert torch.equal(again.net.state_dict()[name], value), name
    with pytest.raises(InputError, match="start"):
        second(tmp_path, first, start="b")
    with pytest.raises(InputError, match="noise_mean"):
        second(tmp_path, first, noise_mean=0.0)


def test_weights_of_another_network_are_refused(first: Path, tmp_path: Path) -> None:
    images, labels = digits()
    data = MNIST(images, labels, images[:50], labels[:50])
    with pytest.raises(InputError, match="another network"):
        train_task("mnist", data, tmp_path, epochs=0.1, start=first, show=False)
    with pytest.raises(InputError, match="no file"):
        train_task("mnist", data, tmp_path, epochs=0.1, start=tmp_path / "none.safetensors")


def test_a_noise_mean_is_of_the_networks_that_draw_it(tmp_path: Path) -> None:
    images, labels = digits()
    data = MNIST(images, labels, images[:50], labels[:50])
    with pytest.raises(InputError, match="noise_mean: is no setting of mnist-classifier"):
        train_task("mnist-classifier", data, tmp_path, epochs=0.1, noise_mean=0.0, show=False)


def test_noise_mean_moves_the_noise(first: Path, tmp_path: Path) -> None:
    """A loss at much higher noise is another number, from the same weights and draws."""
    runs = [second(tmp_path / str(m), first, noise_mean=m) for m in (-1.2, 1.0)]
    losses = [
        float(r.task.loss(r.net, torch.arange(512), torch.Generator().manual_seed(0))) for r in runs
    ]
    assert abs(losses[0] - losses[1]) > 0.02 * losses[0]
