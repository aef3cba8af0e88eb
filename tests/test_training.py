"""Training: exact resume, averaging, data order, the log."""

from __future__ import annotations

import csv
import itertools
import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_runs import SETTINGS, Bomb, assert_same, digits, tiny, weights
from torch import Tensor, nn

from reg_engine.errors import InputError, NumericalError
from reg_engine.training import TrainConfig, Trainer, log
from reg_engine.training.classification import ClassifierTask
from reg_engine.training.diffusion import DiffusionSettings, DiffusionTask
from reg_engine.training.order import batch_indices, mixed
from reg_engine.training.state import Average

ROOT = Path(__file__).resolve().parent.parent
TINY = """
import sys, torch
sys.path.insert(0, {tests!r})
torch.set_num_threads(1)
from tiny_runs import tiny
print(tiny({folder!r}, show=True, steps={steps}).run(), flush=True)
"""


KILLED = 24  # steps of the run that is killed, once the first is kept


# Resume


def test_a_resumed_run_is_bitwise_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = tiny(tmp_path / "whole", steps=9)
    assert whole.run() is True
    for until in (2, 3, 8):
        torch.rand(7)  # what else uses the global generator does not matter
        assert tiny(tmp_path / "parts", steps=9).run(until) is False
    parts = tiny(tmp_path / "parts", steps=9)
    assert parts.step == 8 and parts.run() is True
    assert_same(weights(whole), weights(parts))
    assert tiny(tmp_path / "parts", steps=9).run() is True  # a finished run stays as it is
    assert_same(weights(whole), weights(tiny(tmp_path / "parts", steps=9)))


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """Weights of an uninterrupted run on one thread, as in the child."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    trainer = tiny(tmp_path_factory.mktemp("whole"), steps=KILLED)
    assert trainer.run() is True
    torch.set_num_threads(before)
    return weights(trainer)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in the child: kernels add in another order on more threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_is_resumed_exactly(
    kind: signal.Signals, whole_run: dict[str, Tensor], tmp_path: Path
) -> None:
    """Also with SIGKILL: a checkpoint is whole at any moment."""
    folder = tmp_path / "killed"
    code = TINY.format(tests=str(ROOT / "tests"), folder=str(folder), steps=KILLED)
    command, pipe = [sys.executable, "-c", code], subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as child:
        deadline = time.monotonic() + 60
        while not (folder / "checkpoint.pt").exists() and child.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        child.send_signal(kind)
        said, complained = child.communicate(timeout=60)
    if kind == signal.SIGKILL:
        assert child.returncode == -kind
    else:
        assert child.returncode == 0, complained
        assert said == "False\n"
        assert f"{kind.name}: stopped after step" in complained
        assert "Run the same command again" in complained
    resumed = tiny(folder, steps=KILLED)
    assert 0 < resumed.step < KILLED, complained
    assert resumed.run() is True
    assert_same(whole_run, weights(resumed))


def test_the_log_has_every_row_once(tmp_path: Path) -> None:
    for until in (5, 16, None):
        tiny(tmp_path, steps=30).run(until)
    with open(tmp_path / "loss.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [7, 14, 21, 28, 30]
    assert [float(row["epoch"]) for row in rows] == [
        round(step * 32 / 1797, 4) for step in (7, 14, 21, 28, 30)
    ]
    assert all(float(row["loss"]) > 0 and float(row["images_per_second"]) > 0 for row in rows)
    assert float(rows[0]["lr"]) > float(rows[-1]["lr"]) > 0


def test_another_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    tiny(tmp_path).run(1)
    with pytest.raises(InputError, match=r"lr 0.002 \(now 0.001\).*another folder"):
        tiny(tmp_path, lr=0.001)
    config = TrainConfig(steps=60, batch_size=32, warmup=5, seed=3)
    with pytest.raises(InputError, match=r"task 'mnist' \(now 'mnist-classifier'\)"):
        Trainer(ClassifierTask(*digits()), config, tmp_path)
    wider = DiffusionTask(*digits(), DiffusionSettings(channels=(32, 32), heads=1, embedding=32))
    with pytest.raises(InputError, match="holds another network"):
        Trainer(wider, config, tmp_path)
    images, labels = digits()
    images[1000, 3, 3] ^= 1
    dropout = replace(SETTINGS, label_dropout=0.2)
    for task in (DiffusionTask(images, labels, SETTINGS), DiffusionTask(*digits(), dropout)):
        with pytest.raises(InputError, match="data: .* was trained on other data"):
            Trainer(task, config, tmp_path)


def test_a_damaged_or_foreign_checkpoint_is_refused_and_not_run(tmp_path: Path) -> None:
    path, mark = tmp_path / "checkpoint.pt", tmp_path / "exploded"
    tiny(tmp_path).run(1)
    half = path.read_bytes()[: path.stat().st_size // 2]
    for content, problem in ((half, "cannot be read"), (b"", "cannot be read")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=problem):
            tiny(tmp_path)
    torch.save({"step": 3}, path)
    with pytest.raises(InputError, match="no training checkpoint"):
        tiny(tmp_path)
    torch.save(Bomb(mark), path)
    with pytest.raises(InputError, match="cannot be read"):
        tiny(tmp_path)
    assert not mark.exists()


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    trainer = tiny(tmp_path)
    trainer.run(2)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with torch.no_grad():
        next(trainer.net.parameters()).fill_(math.nan)
    with pytest.raises(NumericalError, match="loss nan.* at step 2; .*lower learning rate"):
        trainer.run()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


# Parts


def test_every_epoch_visits_every_example_once() -> None:
    size, batch = 10, 4
    seen = torch.cat([batch_indices(5, step, batch, size) for step in range(15)])
    for epoch in range(6):
        part = seen[epoch * size : (epoch + 1) * size]
        assert sorted(part.tolist()) == list(range(size))
    assert not torch.equal(seen[:10], seen[10:20])
    assert not torch.equal(seen[:4], batch_indices(6, 0, batch, size))
    assert sorted(batch_indices(5, 0, 25, size).tolist())[::5] == [0, 2, 4, 6, 8]


def test_streams_do_not_meet() -> None:
    """Noise and order, seeds and steps: all different where torch keeps only 32 bits of a seed."""
    seeds = {mixed(seed, stream, n) for seed in range(4) for stream in (0, 1) for n in range(500)}
    assert len(seeds) == 4 * 2 * 500 and max(seeds) < 2**32


class Ramp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(3))


def test_the_average_is_its_closed_form() -> None:
    """Of the weights 1, 2, ..., n after a start at 0: n - b (1 - b^n) / (1 - b)."""
    net, decay, count = Ramp(), 0.9, 40
    average = Average(net)
    for step in range(1, count + 1):
        with torch.no_grad():
            net.value.fill_(float(step))
        average.update(net, decay)
    wanted = count - decay * (1 - decay**count) / (1 - decay)
    torch.testing.assert_close(average.state["value"], torch.full((3,), wanted))
    assert torch.equal(net.value, torch.full((3,), 40.0))


def test_half_of_an_old_weight_is_left_after_the_half_life() -> None:
    config = TrainConfig(steps=10**6, batch_size=100, ema_half_life=5000, ema_ramp=0.05)
    start = 1000  # 100,000 images seen: 5 % of them is the half-life; the ramp is over
    kept = math.prod(config.ema_decay(step) for step in range(start, start + 50))
    assert kept == pytest.approx(0.5, rel=1e-12)
    # On the ramp the half-life is a share r of the images n seen: what the first n/2 images left
    # weighs (1/2)^(ln 2 / r) after n images.
    early = math.prod(config.ema_decay(step) for step in range(499, 999))
    assert early == pytest.approx(0.5 ** (math.log(2) / 0.05), rel=0.02)


def test_the_learning_rate_rises_and_falls_to_zero() -> None:
    config = TrainConfig(steps=1000, lr=0.5, warmup=9)
    assert config.learning_rate(0) == pytest.approx(0.05)
    assert config.learning_rate(4) == pytest.approx(0.25, rel=1e-3)
    assert config.learning_rate(500) == pytest.approx(0.25)
    assert 0 < config.learning_rate(999) < 0.5 * 3e-6


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("batch_size", 0), ("lr", -1.0), ("lr", math.nan), ("clip", 0), ("warmup", -1)],
)
def test_numbers_out_of_range(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name}: is"):
        TrainConfig(**{"steps": 5, name: value})  # type: ignore[arg-type]


def test_an_unknown_dtype() -> None:
    with pytest.raises(InputError, match="Did you mean 'bfloat16'"):
        TrainConfig(steps=1, dtype="bfloat")


def test_a_machine_that_slept_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row that took days has a rate of nothing."""
    hours = itertools.count(0, 1e6)
    monkeypatch.setattr(log, "time", SimpleNamespace(monotonic=lambda: next(hours)))
    assert tiny(tmp_path, steps=14, show=True).run() is True
    assert "0 examples/s, 37.3 minutes left" in capsys.readouterr().err


def test_the_loss_falls_on_real_digits(tmp_path: Path) -> None:
    """A network that knows nothing scores 1: the target has unit variance by construction."""
    tiny(tmp_path, steps=140, batch_size=64, lr=4e-3).run()
    with open(tmp_path / "loss.csv", newline="", encoding="utf-8") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert 0.8 < losses[0] < 1.3
    assert sum(losses[-4:]) / 4 < 0.8
