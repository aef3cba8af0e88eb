"""Toy networks learn what closed forms say; their training resumes and refuses bad points."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import reg_engine
from reg_engine import oracles, schedules
from reg_engine.experiments.report import Report
from reg_engine.experiments.toys import ToyClassifierTask, ToyTask, toy_denoiser, train_toy
from reg_engine.models.toy import ToyClassifier, ToyNet
from reg_engine.schedules import Schedule

MIXTURE = oracles.GaussianMixture(
    torch.tensor([[-1.0], [1.0]], dtype=torch.float64), 0.4, labels=torch.tensor([0, 1])
)


def points(count: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    parts = [MIXTURE.target_sampler(0.0, y)(count // 2, generator) for y in (0, 1)]
    return torch.cat(parts), torch.arange(count) * 2 // count


def report(folder: Path) -> Report:
    return Report("toys", "Toys", folder)


def test_the_size_is_that_of_the_authors() -> None:
    assert sum(p.numel() for p in ToyNet(1).parameters()) == 82_689


def test_labels_matter_only_where_there_is_a_table() -> None:
    torch.manual_seed(0)
    x, t = torch.randn(3, 2), torch.rand(3)
    one, two = torch.tensor([0, 0, 0]), torch.tensor([1, 1, 1])
    conditional, plain = ToyNet(2, num_labels=2, width=8), ToyNet(2, width=8)
    assert not torch.allclose(conditional(x, t, one), conditional(x, t, two))
    assert torch.equal(plain(x, t, one), plain(x, t, None))


@pytest.mark.parametrize(
    ("schedule", "prediction", "times"),
    [
        (schedules.VPLinear(train_steps=50, beta_end=0.2), "epsilon", (5.0, 20.0, 40.0)),
        (schedules.VPLinear(train_steps=50, beta_end=0.2), "v_prediction", (5.0, 20.0, 40.0)),
        (schedules.EDM(), "edm", (0.2, 0.6, 1.5)),
        (schedules.Flow(), "flow", (0.2, 0.5, 0.8)),
    ],
)
def test_training_finds_the_exact_denoiser(
    schedule: Schedule, prediction: str, times: tuple[float, ...], tmp_path: Path
) -> None:
    data, labels = points()
    small = {"width": 48, "embedding": 32, "input_scale": 5.0}
    task = ToyTask(data, labels, schedule, prediction, num_classes=2, label_dropout=0.4, **small)
    net = train_toy(task, report(tmp_path), steps=500, batch_size=256, lr=4e-3)
    denoiser = toy_denoiser(net, task)
    generator = torch.Generator().manual_seed(1)
    for t in times:
        alpha, sigma = schedule(t)
        for y in (0, 1, 2):  # 2 is the null label: the whole mixture
            noise = torch.randn(400, 1, generator=generator, dtype=torch.float64)
            x = alpha * (data[::10] if y == 2 else data[labels == y][::5]) + sigma * noise
            found = denoiser(x.float(), t, torch.full((400,), y)).detach().double()
            exact = MIXTURE.denoised(x, alpha, sigma, y)
            # In units of what the network returns (about 1), for that is what was trained.
            error = float((found - exact).square().mean().sqrt()) / abs(denoiser.at(t).c_out)
            assert error < 0.2, (t, y, error)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_classifiers_find_the_class(kind: str, tmp_path: Path) -> None:
    data, labels = points()
    schedule = schedules.VPLinear(train_steps=50, beta_end=0.2)
    task = ToyClassifierTask(data, labels, schedule, kind, **_small(kind))
    net = train_toy(task, report(tmp_path), steps=400, batch_size=256, lr=1e-2)
    guess = net(data.float(), torch.zeros(len(data))).argmax(1)
    exact = MIXTURE.class_posterior(data, 1.0, 0.0).argmax(-1)
    assert float((guess == exact).double().mean()) > 0.97


def _small(kind: str) -> dict[str, int]:
    return {"width": 32, "embedding": 32} if kind == "mlp" else {}


def test_a_linear_classifier_has_one_slope() -> None:
    net = ToyClassifier(1, 2, "linear", schedules.VPLinear(train_steps=50))
    x = torch.tensor([[0.0], [1.0], [2.0]])
    for t in (0.0, 30.0):
        logits = net(x, torch.full((3,), t))
        assert torch.allclose(logits[1] - logits[0], logits[2] - logits[1], atol=1e-6)
    early, late = (net(x, torch.full((3,), t)) for t in (0.0, 30.0))
    assert torch.allclose(early[1] - early[0], late[1] - late[0], atol=1e-6)
    assert not torch.allclose(early, late)  # only its offset hears the time


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    data, labels = points(200)
    task = ToyTask(data, labels, schedules.EDM(), "edm", num_classes=2, width=8, embedding=8)
    where = report(tmp_path)
    first = train_toy(task, where, steps=20, batch_size=32)
    stamp = (where.work / "toy" / "loss.csv").read_bytes()
    again = train_toy(task, where, steps=20, batch_size=32)
    assert all(map(torch.equal, first.state_dict().values(), again.state_dict().values()))
    assert (where.work / "toy" / "loss.csv").read_bytes() == stamp


def test_bad_points() -> None:
    with pytest.raises(reg_engine.InputError, match="points"):
        ToyTask(torch.zeros(3), None, schedules.EDM())
    with pytest.raises(reg_engine.InputError, match="labels"):
        ToyTask(torch.zeros(3, 1), torch.zeros(2), schedules.EDM())
    with pytest.raises(reg_engine.InputError, match="labels: is None"):
        ToyTask(torch.zeros(3, 1), None, schedules.EDM(), num_classes=2)
