"""Training of the flow: known velocities, nearer samples, exact resume, files, bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import assert_same, weights
from torch import Tensor, nn

from reg_engine import InputError, load_model
from reg_engine.fidelity import nearest_distances
from reg_engine.models import UNet
from reg_engine.models.toy import ToyNet
from reg_engine.postprocess import (
    FlowTask,
    Neighbours,
    Postprocess,
    load_postprocess,
    save_postprocess,
    train_postprocess,
)
from reg_engine.training import TrainConfig, Trainer

QUIET = {"show": False, "batch_size": 128, "lr": 3e-3, "warmup": 10}


def net(rows: int = 1, dim: int = 2) -> nn.Module:
    return ToyNet(dim, rows, width=48, blocks=2, embedding=16, input_scale=3.0, time_scale=5.0)


def cloud(count: int, seed: int = 0, spread: float = 1.0) -> Tensor:
    return spread * torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))


def circle(count: int, seed: int = 0) -> Tensor:
    angle = 6.2831853 * torch.rand(count, generator=torch.Generator().manual_seed(seed))
    return 2 * torch.stack([angle.cos(), angle.sin()], 1)


def task_of(samples: Tensor, real: Tensor, k: int, **choices: Any) -> FlowTask:
    near = Neighbours(real).search(samples, k)[1]
    return FlowTask(samples, real, near, net, **choices)


def test_the_loss_of_the_known_velocity_is_zero() -> None:
    """One real point r: every path ends there, so the velocity at (x_t, t) is (x_t - r) / t."""
    real = torch.tensor([[1.5, -0.5]])
    task = task_of(cloud(200), real, 1)

    class Exact(nn.Module):
        def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            return (x - real) / t[:, None]

    class Off(Exact):
        def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            return super().forward(x, t, cond) + 0.1

    indices = torch.arange(64)
    losses = [
        float(task.loss(model, indices, torch.Generator().manual_seed(3)))
        for model in (Exact(), Off())
    ]
    assert losses[0] < 1e-8 and losses[1] == pytest.approx(0.01, rel=1e-3)


def test_a_trained_flow_has_the_known_velocity(tmp_path: Path) -> None:
    real = torch.tensor([[1.5, -0.5]])
    flow = train_postprocess(cloud(1000), real, tmp_path, steps=300, k=1, net=net, **QUIET)
    x, t = cloud(200, 1), torch.rand(200, generator=torch.Generator().manual_seed(2)) * 0.6 + 0.4
    at = t[:, None] * x + (1 - t[:, None]) * real
    with torch.no_grad():
        found = flow.denoiser.net(at, t, torch.zeros(200, dtype=torch.long))
    assert (found - (x - real)).square().mean().sqrt() < 0.2 * (x - real).square().mean().sqrt()
    moved = flow(cloud(200, 3))
    assert (moved - real).norm(dim=1).mean() < 0.1 * (cloud(200, 3) - real).norm(dim=1).mean()


def test_neighbours_are_drawn_evenly_and_anew() -> None:
    """With an absent velocity the loss is |x - NN|^2: its mean over draws is that over the k."""
    real = torch.tensor([[1.0, 0.0], [0.0, 2.0], [50.0, 0.0]])
    samples = torch.zeros(4, 2)
    task = task_of(samples, real, 2)

    class Still(nn.Module):
        def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            return 0 * x

    generator = torch.Generator().manual_seed(4)
    draws = torch.tensor(
        [float(task.loss(Still(), torch.zeros(1, dtype=torch.long), generator)) for _ in range(600)]
    )
    assert sorted(draws.unique().tolist()) == [0.5, 2.0], "the nearest two, not the far one"
    share = float((draws == 0.5).float().mean())
    assert 0.42 < share < 0.58


def test_samples_come_near_the_data(tmp_path: Path) -> None:
    """>= 2 times nearer to unseen real points than before, by either kind of solver."""
    flow = train_postprocess(
        cloud(1500), circle(600), tmp_path, steps=400, k=5, net=net, flow={"steps": 16}, **QUIET
    )
    fresh, unseen = cloud(500, 7), circle(2000, 8)
    before = nearest_distances(fresh, unseen).mean()
    for solver in ("dopri5", "flow_heun"):
        after = Postprocess(flow.denoiser, solver, 16)(fresh)
        assert nearest_distances(after, unseen).mean() < before / 2


def test_resumed_equals_uninterrupted_bitwise(tmp_path: Path) -> None:
    def trainer(folder: str) -> Trainer:
        labels = torch.arange(300) % 3
        task = task_of(cloud(300), circle(100), 4, labels=labels, label_dropout=0.3)
        task.net = lambda: net(4)
        config = TrainConfig(steps=9, batch_size=32, warmup=2, seed=5)
        return Trainer(task, config, tmp_path / folder, show=False)

    whole = trainer("whole")
    assert whole.run()
    assert not trainer("parts").run(4)
    torch.rand(3)
    parts = trainer("parts")
    assert parts.step == 4 and parts.run()
    assert_same(weights(whole), weights(parts))


def test_dropout_too_is_drawn_from_the_generator() -> None:
    class Dropping(nn.Module):
        def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            return nn.functional.dropout(10 * x, 0.5)

    task, indices = task_of(cloud(64), circle(20), 3), torch.arange(32)
    losses = []
    for seed in (1, 1, 2):
        torch.rand(5)  # the global generator's place does not matter
        losses.append(float(task.loss(Dropping(), indices, torch.Generator().manual_seed(seed))))
    assert losses[0] == losses[1] != losses[2]


def test_a_finished_run_is_read_back_and_other_data_refused(tmp_path: Path) -> None:
    choices = {"steps": 5, "k": 3, "net": net, **QUIET}
    one = train_postprocess(cloud(50), circle(20), tmp_path, **choices)
    two = train_postprocess(cloud(50), circle(20), tmp_path, **choices)
    assert torch.equal(one(cloud(4)), two(cloud(4)))
    for samples, real, k in ((cloud(50, 1), circle(20), 3), (cloud(50), circle(20), 4)):
        with pytest.raises(InputError, match=r"task 'postprocess-.*another folder"):
            train_postprocess(samples, real, tmp_path, **{**choices, "k": k})


def test_a_conditional_flow_learns_its_labels(tmp_path: Path) -> None:
    """Two real points, one a class, searched within the class: the label decides where it goes."""
    real, samples = torch.tensor([[-2.0, 0.0], [2.0, 0.0]]), cloud(1000, 9, 0.5)
    labels = torch.arange(1000) % 2
    flow = train_postprocess(
        samples,
        real,
        tmp_path,
        steps=300,
        k=1,
        labels=labels,
        real_labels=torch.tensor([0, 1]),
        within_class=True,
        net=net(3),
        flow={"solver": "flow_heun", "steps": 12},
        **QUIET,
    )
    fresh = cloud(200, 10, 0.5)
    left, right = (flow(fresh, torch.full((200,), label))[:, 0] for label in (0, 1))
    assert left.mean() < -1.5 and right.mean() > 1.5
    null = Postprocess(flow.denoiser, "flow_heun", 12, scale=0.0)(fresh, 1)[:, 0]
    assert 0.2 < float((null > 0).float().mean()) < 0.8, "without the label both are reached"
    assert (flow.denoiser.null_cond, flow.denoiser.num_classes) == (2, 2)


def test_images_get_a_unet_which_a_file_keeps(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    samples, real = (torch.rand(12, 1, 8, 8, generator=generator) * 2 - 1 for _ in range(2))
    labels = torch.arange(12) % 2
    unet = UNet(1, (16, 32), heads=1, embedding=16, num_labels=3)
    nn.init.normal_(unet.head.weight, std=0.1)
    choices = {"steps": 2, "k": 3, "labels": labels, "show": False, "batch_size": 4}
    flow = train_postprocess(
        samples, real, tmp_path / "run", net=unet, flow={"solver": "flow_heun"}, **choices
    )
    path = tmp_path / "flow.safetensors"
    save_postprocess(flow, path)
    kept = load_postprocess(path)
    assert (kept.solver, kept.steps, kept.scale) == ("flow_heun", 32, 1.0)
    assert kept.denoiser.num_classes == 2 and kept.denoiser.null_cond == 2
    wanted = flow(samples, labels)
    assert torch.allclose(kept(samples, labels), wanted, atol=5e-3), "float16 weights"
    assert not torch.allclose(samples, wanted, atol=0.05), "the flow does something"
    assert load_postprocess(path, solver="dopri5", scale=2.0).scale == 2.0
    default = train_postprocess(samples, real, tmp_path / "default", **choices)
    assert isinstance(default.denoiser.net, UNet)
    assert default.denoiser.net.arguments["num_labels"] == 3


def test_points_get_a_toy_net_without_labels(tmp_path: Path) -> None:
    flow = train_postprocess(cloud(30), circle(10), tmp_path, steps=1, k=2, **QUIET)
    assert isinstance(flow.denoiser.net, ToyNet) and flow.denoiser.num_classes is None
    assert flow(cloud(3), torch.tensor([5, 6, 7])).shape == (3, 2), "labels are not looked at"
    with pytest.raises(InputError, match="flow: has a ToyNet, which a file cannot rebuild"):
        save_postprocess(flow, tmp_path / "flow.safetensors")


def test_bad_input(tmp_path: Path) -> None:
    choices = {"steps": 1, "show": False}
    with pytest.raises(InputError, match="k: is 20, but there are 10 real samples"):
        train_postprocess(cloud(30), circle(10), tmp_path, **choices)
    labels = torch.zeros(30, dtype=torch.long)
    with pytest.raises(InputError, match="real_labels: are missing"):
        train_postprocess(
            cloud(30), circle(10), tmp_path, labels=labels, within_class=True, **choices
        )
    with pytest.raises(InputError, match="labels: are missing"):
        train_postprocess(cloud(30), circle(10), tmp_path, within_class=True, **choices)
    with pytest.raises(InputError, match=r"net: is not given for samples \(1, 7, 7\)"):
        train_postprocess(*torch.rand(2, 9, 1, 7, 7), tmp_path, k=2, **choices)
    from reg_engine.storage.weights import save_weights

    unet = load_model("mnist").net
    path = tmp_path / "other.safetensors"
    save_weights(path, unet.state_dict(), {"architecture": "unet", "arguments": unet.arguments})
    with pytest.raises(InputError, match="describes no postprocessing flow"):
        load_postprocess(path)
    with pytest.raises(InputError, match="there is no file"):
        load_postprocess(tmp_path / "none.safetensors")
