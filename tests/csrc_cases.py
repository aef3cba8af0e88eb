"""What the tests of the compiled ops share: where they run, and a guidance step with its twin."""

from __future__ import annotations

from collections.abc import Iterator

import kernel_cases
import pytest
import torch
from kernel_cases import Make, Step, rand
from torch import Tensor

from reg_engine.ops import extension

LARGE = (3, 5, 49, 50)  # several threads on the CPU, several tiles of each sample and a rest


CUDA = [pytest.param("cuda", marks=pytest.mark.gpu)] if torch.cuda.is_available() else []


@pytest.fixture(params=["cpu", *CUDA])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each kind of device; skips where its ops are not built, fails with REG_ENGINE_EXT=1."""
    monkeypatch.setattr(kernel_cases, "DEVICE", request.param)
    state = extension.load()[request.param]
    if state != "loaded":
        pytest.skip(f"the compiled ops for {request.param}: {state}")
    threads = torch.get_num_threads()
    yield request.param
    torch.set_num_threads(threads)


def on(device: str, number: int) -> Tensor:
    return torch.tensor([number], device=device)


def run(step: Step, out: Tensor) -> tuple[Tensor, Tensor | None]:
    """x_s and the history after the step, by the compiled op."""
    return step.run(extension.op("guided_step"), out)


def verify(step: Step, make_out: Make = rand) -> None:
    """The compiled op against its twin."""
    kernel_cases.verify(extension.op("guided_step"), step, make_out)
