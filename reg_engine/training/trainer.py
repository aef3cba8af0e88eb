"""One training loop for every task: exact resume, weight averaging, a loss log, a clean stop."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import InputError, NumericalError
from ..storage.digest import digest
from ..storage.files import check_writable
from ..storage.readers import refusing
from .compact import compacted, expanded
from .config import TrainConfig
from .log import LossLog, Reporter, Task
from .order import batch_indices, mixed
from .precision import faster
from .state import REMEDY, Average, check_values, load_state, save_state

__all__ = ["Task", "Trainer"]


def _begin_with(net: nn.Module, weights: dict[str, Tensor]) -> None:
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(
            "start",
            f"the weights belong to another network ({str(error).splitlines()[0]})",
            "Give weights that the same task exported",
        ) from error


class Trainer:
    """Train a task's network; everything lies in one folder.

    The folder holds `checkpoint.pt` (weights, average, optimizer, step, generator state, config;
    read with `weights_only=True`) and `loss.csv`. A Trainer made where a checkpoint lies goes on
    from it, and gives bitwise the weights of an uninterrupted run: examples and noise of a step are
    functions of (seed, step) alone.

    Args:
        task: what to train.
        config: numbers of the run.
        folder: made if missing.
        device: where to train.
        save_seconds: seconds between checkpoints.
        log_every: steps that one row of loss.csv averages.
        start: weights to begin with instead of new ones (`config.start` should name them).
        compact: keep the checkpoint in about 12 bits a weight (compact.py): what goes on from it is
            near an uninterrupted run, not bitwise that run.
        compiled: train what torch.compile makes of the network.
        show: progress on standard error: a bar on a terminal, else a line with each row of the log.
        announce: say at the start what runs and how long it will take, in one line on standard
            error; None = as `show`.

    Raises:
        InputError: the folder cannot be written, or holds a run with another task, config or other
            data, or a damaged one.
    """

    def __init__(
        self,
        task: Task,
        config: TrainConfig,
        folder: Path | str,
        *,
        device: str | torch.device = "cpu",
        save_seconds: float = 60.0,
        log_every: int = 50,
        show: bool = True,
        announce: bool | None = None,
        start: dict[str, Tensor] | None = None,
        compact: bool = False,
        compiled: bool = False,
    ) -> None:
        self.task, self.folder, self.device = task, Path(folder), torch.device(device)
        self.save_seconds, self.show, self.compact = save_seconds, show, compact
        self.announce = show if announce is None else announce
        self.checkpoint = check_writable(self.folder / "checkpoint.pt", "folder")
        self.config, self.why = config, ""  # why it is not trained in the dtype that was asked for
        if not self.checkpoint.exists():
            dtype, self.why = faster(config.dtype, self.device)
            self.config = replace(config, dtype=dtype)
        torch.manual_seed(config.seed)
        # Channels last is what the CPU's and the GPU's bfloat16 convolutions want.
        net: Any = task.build().to(self.device)  # Any: nn.Module.to is not typed for memory formats
        self.net: nn.Module = net.to(memory_format=torch.channels_last)
        if start is not None:
            _begin_with(self.net, start)
        self._called: Any = torch.compile(self.net) if compiled else self.net  # the same weights
        self.average = Average(self.net)
        own = vars(task).items()  # a name with _ is of what passes
        held = {name: value for name, value in own if name != "device" and name[0] != "_"}
        self.data = digest(type(task), held)
        self.optimizer = torch.optim.AdamW(
            _groups(self.net, config.weight_decay), lr=config.lr, betas=config.betas
        )
        self.step, self.seconds = 0, 0.0
        self.stopped: str | None = None  # the last run, early: by a signal (its name) or "piece"
        self._losses: list[float] = []
        if self.checkpoint.exists():
            self._resume()
        self.log = LossLog(self.folder / "loss.csv", self.step, log_every, self._losses)

    def run(self, until: int | None = None, deadline: float | None = None) -> bool:
        """Train up to step `until` (default: all); save; return whether the run is finished.

        SIGINT and SIGTERM finish the current step, save a checkpoint and return False. So does a
        `deadline` (of time.monotonic()), in time for another step and another save as long as the
        last ones; one step is made in any case.

        Raises:
            NumericalError: the loss is NaN or infinite; the last checkpoint stays as it was.
        """
        last = self.config.steps if until is None else min(until, self.config.steps)
        with self._signals(), Reporter(self, self.show) as reporter:
            saved = began = last_seen = time.monotonic()
            before, saving = self.seconds, 0.0
            while self.step < last and self.stopped is None:
                loss = self._train_step()
                now = time.monotonic()
                self.seconds = before + now - began
                row = self.log.add(self, loss)
                reporter.update(row, now - last_seen)
                if now - saved >= self.save_seconds or (deadline and not saving):
                    self.save()
                    saved = now
                    saving = time.monotonic() - now if deadline else 0.0
                if deadline and self.step < last:
                    spare = deadline - time.monotonic()
                    if spare <= now - last_seen + saving:
                        self.stopped = self.stopped or "piece"
                last_seen = now
            self.save()
            if self.stopped is not None:
                reporter.say(
                    f"{self.stopped}: stopped after step {self.step} of {self.config.steps}, saved "
                    f"in {self.checkpoint}. Run the same command again to go on."
                )
        return self.step >= self.config.steps

    def _train_step(self) -> float:
        config, step = self.config, self.step
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate(step)
        indices = batch_indices(config.seed, step, config.batch_size, self.task.size)
        generator = torch.Generator().manual_seed(mixed(config.seed, 1, step))
        self.net.train()
        # On the CPU math attention is faster in training than the fused kernel, with 49 tokens.
        attention = sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext()
        with (
            attention,
            torch.autocast(self.device.type, torch.bfloat16, enabled=config.dtype == "bfloat16"),
        ):
            loss = self.task.loss(self._called, indices, generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        value = float(loss.detach())
        norm = float(nn.utils.clip_grad_norm_(self.net.parameters(), config.clip))
        if not (torch.isfinite(torch.tensor([value, norm])).all()):
            raise NumericalError(
                f"training {self.task.name}: loss {value}, gradient norm {norm} at step {step}; "
                f"start again with a lower learning rate than {config.lr}"
            )
        self.optimizer.step()
        self.average.update(self.net, config.ema_decay(step))
        self.step += 1
        return value

    def save(self) -> None:
        """Write the checkpoint: to a temporary file first, then renamed over the old one."""
        self.log.flush()
        state = {
            "task": self.task.name,
            "config": self.config.as_dict(),
            "data": self.data,
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.log.losses,
            "net": self.net.state_dict(),
            "average": self.average.state,
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
        }
        save_state(self.checkpoint, compacted(state) if self.compact else state)

    def _resume(self) -> None:
        state = load_state(self.checkpoint)
        asked = (self.config.dtype, self.device.type)
        if asked == ("bfloat16", "cpu") and state["config"].get("dtype") == "float32":
            # What the run began with, where bfloat16 was slow: now it may be measured otherwise.
            self.config, self.why = replace(self.config, dtype="float32"), "the run began with it"
        ours = {"task": self.task.name, **self.config.as_dict()}
        theirs: dict[str, Any] = {"task": state["task"], **state["config"]}
        different = [key for key in ours if ours[key] != theirs.get(key)]
        if different:
            text = ", ".join(f"{key} {theirs.get(key)!r} (now {ours[key]!r})" for key in different)
            raise InputError(
                "config",
                f"{self.checkpoint} was trained with {text}",
                "Give the same settings to go on with it, or another folder to start anew",
            )
        with refusing(
            "checkpoint", f"{self.checkpoint} holds another network or is damaged", REMEDY
        ):
            self._take(expanded(state))
        if state["data"] != self.data:
            raise InputError(
                "data",
                f"{self.checkpoint} was trained on other data, or with other settings of the task",
                "Give the same data to go on with it, or another folder to start anew",
            )

    def _take(self, state: dict[str, Any]) -> None:
        check_values(self.net.state_dict(), state["net"])
        self.net.load_state_dict(state["net"])
        self.average.load(state["average"])
        # The groups' numbers are the config's, which was compared.
        groups = self.optimizer.state_dict()["param_groups"]
        moments = {"state": state["optimizer"]["state"], "param_groups": groups}
        self.optimizer.load_state_dict(moments)
        for parameter, kept in self.optimizer.state.items():
            if any(kept[name].shape != parameter.shape for name in ("exp_avg", "exp_avg_sq")):
                raise ValueError("the optimizer's state has another shape")
        torch.set_rng_state(state["rng"])
        self.step, self.seconds = state["step"], float(state["seconds"])
        if not (0 <= self.step <= self.config.steps and math.isfinite(self.seconds)):
            raise ValueError(f"step {self.step} of {self.config.steps}")
        if self.step and not self.optimizer.state:
            raise ValueError("no optimizer's state")
        # A checkpoint of an earlier version has none: its next row averages fewer steps.
        self._losses = [float(loss) for loss in state.get("losses", [])]

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn SIGINT and SIGTERM into a request to stop after the current step."""

        def note(number: int, _frame: FrameType | None) -> None:
            self.stopped = signal.Signals(number).name

        try:
            old = {kind: signal.signal(kind, note) for kind in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not in the main thread: signals go to that thread's owner
            old = {}
        self.stopped = None
        try:
            yield
        finally:
            for kind, handler in old.items():
                signal.signal(kind, handler)


def _groups(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters with weight decay (matrices, kernels) and without (biases, norms)."""
    parameters = [p for p in net.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
