"""Training in pieces: the deadline, checkpoints of 12 bits a weight, torch.compile."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tiny_runs import SETTINGS, assert_same, digits, tiny, weights
from torch import Tensor

from reg_engine.cli import cli
from reg_engine.data.mnist import MNIST
from reg_engine.errors import InputError
from reg_engine.training import TrainConfig, Trainer, train_task
from reg_engine.training import trainer as trainer_module
from reg_engine.training.compact import GROUP, compacted, expanded
from reg_engine.training.diffusion import DiffusionTask


class Clock:
    """A step takes a second of it, a save five (Trainer._train_step and save are told to tick)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.saves = 100.0, 0
        step, save = Trainer._train_step, Trainer.save
        monkeypatch.setattr(trainer_module.time, "monotonic", lambda: self.now)

        def stepped(trainer: Trainer) -> float:
            self.now += 1
            return step(trainer)

        def saved(trainer: Trainer) -> None:
            self.now, self.saves = self.now + 5, self.saves + 1
            save(trainer)

        monkeypatch.setattr(Trainer, "_train_step", stepped)
        monkeypatch.setattr(Trainer, "save", saved)


def rare(folder: Path, **choices: Any) -> Trainer:
    """Of 20 steps; saves every 1000 s."""
    config = TrainConfig(steps=20, batch_size=8, warmup=2, seed=3)
    task = DiffusionTask(*digits(), SETTINGS)
    return Trainer(task, config, folder, save_seconds=1000.0, show=False, **choices)


# Pieces


def test_a_piece_ends_before_its_deadline_and_the_next_goes_on_bitwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rare(tmp_path / "whole")
    assert whole.run() is True and whole.stopped is None
    clock = Clock(monkeypatch)
    # One step and the save that measures itself: 6 s. Then one a second, as long as another step
    # and a save (6 s) fit: at 12 s after the beginning 8 are left of 20, at 14 s 6 are.
    part = rare(tmp_path / "parts")
    assert part.run(deadline=120.0) is False
    assert (part.step, part.stopped, clock.now, clock.saves) == (9, "piece", 119.0, 2)
    part = rare(tmp_path / "parts")
    assert part.step == 9 and part.run(deadline=clock.now) is False  # one step in any case
    assert part.step == 10
    assert part.run(deadline=clock.now + 1000) is True and part.stopped is None
    assert_same(weights(whole), weights(part))


def test_a_run_that_ends_at_its_deadline_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    trainer = rare(tmp_path)
    trainer.run(until=19)
    assert trainer.run(deadline=clock.now) is True and trainer.stopped is None


def test_the_command_goes_on_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = digits()
    parts = {"x_train": images[:64], "y_train": labels[:64]}
    enlarged = {
        key: np.kron(value, np.ones((1, 4, 4), np.uint8))[:, 2:30, 2:30]
        for key, value in {"x_train": images[:64], "x_test": images[64:80]}.items()
    }
    np.savez(tmp_path / "mnist.npz", **{**parts, "y_test": labels[64:80], **enlarged})
    words = [
        "train",
        "mnist-classifier",
        "--data",
        str(tmp_path / "mnist.npz"),
        "--batch-size",
        "8",
    ]
    words += ["--epochs", "0.5", "--out", str(tmp_path / "run"), "--no-progress", "--compact"]
    first = CliRunner().invoke(cli, [*words, "--piece", "0.00001"], catch_exceptions=False)
    assert first.exit_code == 0 and "step 1 of 4" in first.output
    assert "the piece is over: the same command goes on" in first.output
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["packed"]
    second = CliRunner().invoke(cli, [*words, "--piece", "9", "--json"], catch_exceptions=False)
    found = json.loads(second.stdout[second.stdout.index("{") :])
    assert (found["step"], found["finished"], found["stopped"]) == (4, True, None)
    for bad in ("0", "-1", "nan", "inf"):
        refused = CliRunner().invoke(cli, [*words, "--piece", bad])
        assert isinstance(refused.exception, InputError) and "--piece" in str(refused.exception)


# Compact checkpoints


def state_of(generator: torch.Generator, *shape: int) -> dict[str, Any]:
    """A trainer's state of one matrix and one vector; moments as AdamW's."""
    weight, vector = torch.randn(shape, generator=generator), torch.randn(3, generator=generator)
    average = weight + 0.01 * torch.randn(shape, generator=generator)
    square = torch.rand(shape, generator=generator) * 1e-9
    moments = {"step": torch.tensor(7.0), "exp_avg": weight * 0.1, "exp_avg_sq": square}
    few = {"step": torch.tensor(7.0), "exp_avg": vector * 0.1, "exp_avg_sq": vector**2}
    return {
        "step": 7,
        "net": {"w": weight, "b": vector},
        "average": {"w": average, "b": vector + 1},
        "optimizer": {"state": {0: moments, 1: few}, "param_groups": [{"lr": 1.0}]},
    }


@pytest.mark.parametrize("shape", [(16, 16), (13, 3, 3, 3), (129, 1), (5, 51)])
def test_what_is_coded_comes_back_within_half_a_level(shape: tuple[int, ...]) -> None:
    state = state_of(torch.Generator().manual_seed(0), *shape)
    back = expanded(compacted(state))
    weight, average = state["net"]["w"], state["average"]["w"]
    gap = average - back["net"]["w"]
    # Rounding loses half a level; the scale is bfloat16's, 2^-9 off at most, of 127 or 7 levels.
    for ours, theirs, spread, levels in (
        (back["net"]["w"], weight, weight, 127),
        (back["average"]["w"], average, gap, 7),
    ):
        for part, own, wide in zip(
            *(x.flatten().split(GROUP) for x in (ours, theirs, spread)), strict=True
        ):
            bound = wide.abs().max() * (0.5 * (1 + 2**-8) / levels + 2**-8)
            assert float((part - own).abs().max()) <= float(bound)
    for name in ("net", "average"):
        assert torch.equal(back[name]["b"], state[name]["b"])
    assert back["step"] == 7 and back["optimizer"]["param_groups"] == [{"lr": 1.0}]
    ours, theirs = back["optimizer"]["state"][0], state["optimizer"]["state"][0]
    assert ours["exp_avg_sq"].shape == shape and not ours["exp_avg"].any()
    assert float(ours["step"]) == 7
    one, other = (m["exp_avg_sq"].flatten(1) for m in (ours, theirs))
    for axis in (0, 1):
        assert torch.allclose(one.mean(axis), other.mean(axis), rtol=1e-5, atol=0)
    assert torch.linalg.matrix_rank((one / one.mean()).double(), rtol=1e-5) == 1
    assert_same(back["optimizer"]["state"][1], state["optimizer"]["state"][1])


def test_zeros_and_an_average_like_the_weights_stay_exact() -> None:
    state = state_of(torch.Generator().manual_seed(0), 16, 16)
    state["net"]["w"] = torch.zeros(16, 16)
    state["average"]["w"] = torch.zeros(16, 16)
    back = expanded(compacted(state))
    assert not back["net"]["w"].any() and not back["average"]["w"].any()
    state["optimizer"]["state"][0]["exp_avg_sq"] = torch.zeros(16, 16)  # no gradient yet
    assert not expanded(compacted(state))["optimizer"]["state"][0]["exp_avg_sq"].any()


def test_coding_again_changes_nothing_of_the_weights() -> None:
    once = expanded(compacted(state_of(torch.Generator().manual_seed(0), 64, 9)))
    twice = expanded(compacted(once))
    assert torch.allclose(once["net"]["w"], twice["net"]["w"], rtol=2**-7, atol=0)


def test_a_state_that_was_not_coded_stays_itself() -> None:
    state = state_of(torch.Generator().manual_seed(0), 16, 16)
    assert expanded(state) is state


def test_codes_that_do_not_fit_are_refused() -> None:
    def changed(name: str, value: Any) -> dict[str, Any]:
        state = compacted(state_of(torch.Generator().manual_seed(0), 16, 16))
        state["packed"]["w"] |= {name: value}
        return state

    scales = torch.ones(3, dtype=torch.bfloat16)
    for state in (changed("shape", [16, 17]), changed("scales", scales)):
        with pytest.raises((ValueError, RuntimeError)):
            expanded(state)


def test_the_checkpoint_of_the_colour_network_fits_60_megabytes(tmp_path: Path) -> None:
    """35.75 million weights, by the bytes of a matrix of a 16th of them."""
    rows = 35_750_000 // 16 // 1152
    state = compacted(state_of(torch.Generator().manual_seed(0), rows, 1152))
    torch.save(state, tmp_path / "state.pt")
    size = (tmp_path / "state.pt").stat().st_size
    assert 12 <= 8 * size / (rows * 1152) <= 12.6
    assert 16 * size < 57e6


def test_a_compact_run_goes_on_near_an_exact_one(tmp_path: Path) -> None:
    """Losses of later steps, on the same data and noise, are those of the exact run within 2 %."""
    assert (tmp_path / "no").exists() is False
    losses: dict[bool, list[float]] = {}
    for compact in (False, True):
        folder, losses[compact] = tmp_path / str(compact), []
        for until in (20, 40, 60):
            trainer = tiny(folder)
            trainer.compact, trainer.save_seconds = compact, 1000.0
            assert trainer.step == until - 20
            step = trainer._train_step

            def noted(step: Any = step, own: list[float] = losses[compact]) -> float:
                own.append(step())
                return own[-1]

            trainer._train_step = noted  # type: ignore[method-assign]
            trainer.run(until)
        assert len(losses[compact]) == 60
    one, other = (torch.tensor(losses[compact]) for compact in (False, True))
    assert torch.equal(one[:20], other[:20]) and not torch.equal(one[20:], other[20:])
    assert abs(float(other[20:].mean() / one[20:].mean()) - 1) < 0.02
    sizes = [(tmp_path / str(c) / "checkpoint.pt").stat().st_size for c in (True, False)]
    assert sizes[0] < sizes[1] / 3  # so small a network has many vectors


# torch.compile


def test_the_loss_is_that_of_the_compiled_network_and_its_weights_are_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bitwise the run without, where what is compiled computes the same."""
    called: list[Tensor] = []

    def compiled(net: torch.nn.Module) -> Any:
        return lambda x, *more: (called.append(x), net(x, *more))[1]

    monkeypatch.setattr(torch, "compile", compiled)
    trainers = [rare(tmp_path / str(flag), compiled=flag) for flag in (False, True)]
    for trainer in trainers:
        trainer.run(3)
    assert len(called) == 3
    assert_same(*(weights(trainer) for trainer in trainers))


@pytest.mark.slow
def test_a_compiled_run_is_near_a_plain_one(tmp_path: Path) -> None:
    trainers = [rare(tmp_path / str(flag), compiled=flag) for flag in (False, True)]
    for trainer in trainers:
        trainer.run(6)
    one, other = (weights(trainer) for trainer in trainers)
    for name, value in one.items():
        assert torch.allclose(value, other[name], rtol=1e-3, atol=1e-4), name


def test_train_task_hands_its_choices_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = digits()
    data = MNIST(images[:64], labels[:64], images[64:80], labels[64:80])
    monkeypatch.setattr(torch, "compile", lambda net: net)
    found = train_task(
        "mnist",
        data,
        tmp_path,
        settings=SETTINGS,
        epochs=1,
        batch_size=8,
        show=False,
        deadline=time.monotonic(),
        compact=True,
        compiled=True,
    )
    assert (found.step, found.steps, found.stopped, found.finished) == (1, 8, "piece", False)
    assert found.weights is None
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["packed"] and state["step"] == 1
