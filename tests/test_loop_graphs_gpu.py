"""Captured sampling on a GPU: the same samples as eager ones, and a host that never waits."""

from __future__ import annotations

import pytest
import torch
from nets import tiny

from reg_engine import BadModel, Engine, Guidance, NumericalError, load_model, schedules
from reg_engine.noise import SampleNoise
from reg_engine.rectifiers import RECTIFIERS, looks

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def engines(model: object, **choices: object) -> tuple[Engine, Engine]:
    """Eager and captured, on the GPU."""
    choices = {"steps": 5, "device": "cuda", "progress": False, **choices}
    return Engine(model, capture=False, **choices), Engine(model, capture=True, **choices)


@pytest.mark.parametrize("rectify", [None, *(r for r in RECTIFIERS if not looks(r))])
@pytest.mark.parametrize("solver", ["heun", "euler_ancestral", "dpmpp_2m"])
def test_captured_samples_equal_eager_ones(rectify: str | None, solver: str) -> None:
    """The same kernels on the same numbers: bit for bit, also for new seeds and labels."""
    eager, captured = engines(tiny(), scale=2.5, rectify=rectify, solver=solver)
    for seeds in (range(4), range(9, 13)):
        a = eager.sample([0, 1, 2, 0], seeds=seeds)
        b = captured.sample([0, 1, 2, 0], seeds=seeds)
        assert b.stats.capture == "captured"
        assert torch.equal(a.samples, b.samples)
        assert (a.stats.nfe, a.stats.backward) == (b.stats.nfe, b.stats.backward)


@pytest.mark.parametrize("backend", ["reference", "triton"])
@pytest.mark.parametrize("rectify", [None, "vjp", "fd_batched"])
def test_the_real_network_is_captured(rectify: str | None, backend: str) -> None:
    """Convolutions may choose another algorithm under capture: float32 rounding, grown by 35
    evaluations, stays far below one grey level (2/255)."""
    eager, captured = engines(
        load_model("mnist"), scale=3.0, rectify=rectify, steps=18, backend=backend
    )
    labels = list(range(10))
    a, b = eager.sample(labels), captured.sample(labels)
    assert b.stats.capture == "captured"
    assert float((a.samples - b.samples).abs().max()) < 1e-2


@pytest.mark.parametrize("rectify", [None, "vjp", "fd_batched", "diagonal"])
def test_the_host_never_waits_between_rows(rectify: str | None) -> None:
    _, captured = engines(tiny(), scale=2.0, rectify=rectify, solver="euler_ancestral")
    captured.sample([0, 1])
    (capture,) = captured._graphs._kept.values()
    draws, probes = captured.draws(SampleNoise([3, 4])), SampleNoise([3, 4], "probes")
    next(draws)
    capture.step.zero_()
    capture.state.memory.filled = frozenset()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.inference_mode():
            capture.replay(draws, probes)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_worse_model_is_captured() -> None:
    worse = tiny("flow", schedules.Flow())
    worse.net.cuda()
    eager, captured = engines(tiny(), guidance=Guidance(2.0, BadModel(worse), rectify="vjp"))
    assert torch.equal(eager.sample([0, 1]).samples, captured.sample([0, 1]).samples)


def test_nan_in_a_captured_run_is_named() -> None:
    _, captured = engines(tiny(), scale=2.0, rectify=None)
    captured.sample([0, 1])
    with torch.no_grad():
        captured.denoiser.net.label.weight[1] = torch.nan
    with pytest.raises(NumericalError, match=r"evaluation 0 .*samples \[1\]"):
        captured.sample([0, 1])


def test_auto_captures_the_second_batch_and_goes_without_where_it_cannot() -> None:
    class Waits(torch.nn.Module):
        """Asks the device for a number, which no graph can hold."""

        def __init__(self) -> None:
            super().__init__()
            self.leave = torch.nn.Linear(16, 16)

        def forward(self, x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
            return self.leave(x.flatten(1)).reshape_as(x) * (1.0 + float(t[0]))

    engine = Engine(tiny(), scale=2.0, rectify=None, steps=3, device="cuda", progress=False)
    assert "first batch" in engine.sample([0, 1]).stats.capture
    assert engine.sample([0, 1]).stats.capture == "captured"
    waits = tiny(net=Waits())
    engine = Engine(waits, scale=2.0, rectify=None, steps=3, device="cuda", progress=False)
    first = engine.sample([0, 1]).samples
    again = engine.sample([0, 1])
    assert again.stats.capture.startswith("not captured: ")
    assert torch.equal(first, again.samples)
