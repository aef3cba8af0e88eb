"""What the tests of the compiled ops share: where they run, and a guidance step with its twin."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import kernel_cases
import pytest
import torch
from kernel_cases import F16, F32, Make, check, poisoned, rand
from torch import Tensor

from reg_engine import csrc, reference
from reg_engine.coefficients import FIRST_B

SHAPE = (3, 5, 4, 6)
LARGE = (3, 5, 49, 50)  # several threads on the CPU, several tiles of each sample and a rest
ROWS, ROW = 6, 3
VARIANTS = {
    "none": (False, False),
    "cfg": (True, False),
    "rectifier": (True, True),
    "vector": (False, True),
}


CUDA = [pytest.param("cuda", marks=pytest.mark.gpu)] if torch.cuda.is_available() else []


@pytest.fixture(params=["cpu", *CUDA])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each kind of device; skips where its ops are not built, fails with REG_ENGINE_EXT=1."""
    monkeypatch.setattr(kernel_cases, "DEVICE", request.param)
    state = csrc.load()[request.param]
    if state != "loaded":
        pytest.skip(f"the compiled ops for {request.param}: {state}")
    threads = torch.get_num_threads()
    yield request.param
    torch.set_num_threads(threads)


def on(device: str, number: int) -> Tensor:
    return torch.tensor([number], device=device)


@dataclass(frozen=True)
class Case:
    """The arguments of one step; `twin` runs it in plain torch, `run` through the compiled op."""

    x: Tensor
    cond: Tensor
    table: Tensor
    ref: Tensor | None = None
    term: Tensor | None = None
    gain: Tensor | None = None
    noise: Tensor | None = None
    history: Tensor | None = None
    channels: int = -1
    step: int = ROW

    def doubled(self) -> Case:
        named = ("x", "cond", "table", "ref", "term", "gain", "noise", "history")
        tensors = {name: getattr(self, name) for name in named}
        return replace(self, **{k: t.double() for k, t in tensors.items() if t is not None})

    def twin(self) -> tuple[Tensor, Tensor | None]:
        """x_s and the history after the step."""
        history = None if self.history is None else self.history.clone()
        x_s = reference.guided_step(
            self.x,
            self.cond,
            self.table,
            on(self.x.device.type, self.step),
            ref=self.ref,
            term=self.term,
            gain=self.gain,
            noise=self.noise,
            history=history,
            channels=self.channels,
        )
        return x_s, history

    def run(self, out: Tensor) -> tuple[Tensor, Tensor | None]:
        """The same through the op; the slot of this step is full of NaN before."""
        history = None if self.history is None else self.history.clone()
        if history is not None:
            history[self.step % len(history)] = math.nan
        step = on(self.x.device.type, self.step)
        given = (self.x, self.cond, self.table, step, self.ref, self.term, self.gain, self.noise)
        csrc.op("guided_step")(*given, history, self.channels, out)
        return out, history

    def verify(self, make_out: Make = rand) -> None:
        """x_s and the written slot by the rule of accuracy, every other slot untouched."""
        out, history = self.run(poisoned(make_out, tuple(self.x.shape), self.x.dtype))
        (twin, twin_ring), (exact, exact_ring) = self.twin(), self.doubled().twin()
        check(out, twin, exact)
        if history is not None:
            assert twin_ring is not None and exact_ring is not None and self.history is not None
            slot = self.step % len(history)
            check(history[slot], twin_ring[slot], exact_ring[slot])
            others = [h for h in range(len(history)) if h != slot]
            assert torch.equal(history[others], self.history[others])


def make_case(
    shape: tuple[int, ...] = SHAPE,
    dtype: torch.dtype = F32,
    given: tuple[bool, bool] = (True, False),
    make: Make = rand,
    net: torch.dtype = F16,
    lags: int = 0,
    ring: int = 0,
    gain: bool = False,
    noise: bool = False,
    channels: int = -1,
) -> Case:
    """A case with random coefficients; `make` lays out everything but table, gain and history."""
    ref, term = (make(shape, net) if there else None for there in given)
    return Case(
        x=make(shape, dtype),
        cond=make(shape, net),
        table=rand((ROWS, FIRST_B + 1 + lags), dtype),
        ref=ref,
        term=term,
        gain=rand((shape[0],), dtype) if gain else None,
        noise=make(shape, dtype) if noise else None,
        history=rand((ring, *shape), dtype) if ring else None,
        channels=channels,
    )


def full(shape: tuple[int, ...] = SHAPE, **changes: object) -> Case:
    """Everything at once."""
    options = {"given": (True, True), "lags": 2, "ring": 3, "gain": True, "noise": True}
    return make_case(shape, **{**options, **changes})  # type: ignore[arg-type]
