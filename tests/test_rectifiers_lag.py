"""The lagged direction inside a run: its backend, and a host that need not look."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nets import Shy, TinyNet, tiny
from torch.utils._python_dispatch import TorchDispatchMode

from reg_engine import Engine, Guidance
from reg_engine.guidance.adjustments import Rescale
from reg_engine.guidance.directions import APG, TCFG, CFGZeroStar, Delta
from reg_engine.ops import door as ops
from reg_engine.rectifiers import JVP, RECTIFIERS, FDBatched


@pytest.mark.parametrize("backend", ["reference", "triton"])
@pytest.mark.parametrize("direction", [Delta(), APG(), CFGZeroStar(), TCFG()])
def test_every_op_of_a_run_goes_to_the_backend_asked_for(
    backend: str, direction: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, str]] = []

    def recording(name: str, device: torch.device, asked: str | None, args: Any) -> bool:
        ran.append((name, ops.resolve(device, asked)))
        return False  # plain torch does the work

    monkeypatch.setattr(ops, "_ran", recording)
    for rectify in (None, *RECTIFIERS):
        guidance = Guidance(2.0, rectify=rectify, direction=direction, adjust=(Rescale(0.7),))
        Engine(tiny(), guidance=guidance, steps=3, backend=backend, progress=False).sample([0, 1])
    assert {name for name, _ in ran} == {"reduce", "probe", "combine", "guided_step"}
    assert {used for _, used in ran} == {backend}


LOOKS = (torch.ops.aten.is_nonzero.default, torch.ops.aten._local_scalar_dense.default)


class Looks(TorchDispatchMode):
    """Counts the bools that the host reads from a tensor inside a run."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.is_inference_mode_enabled() and func in LOOKS and args[0].dtype == torch.bool:
            self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("rectifier", [FDBatched(), JVP()])
def test_a_host_that_must_not_wait_looks_once_a_batch(rectifier: object) -> None:
    """As on a GPU: the same samples, and one look at the end."""
    choices = {"scale": 2.0, "rectify": rectifier, "steps": 5, "progress": False}
    exact = Engine(tiny(), **choices).sample([0, 1])
    engine = Engine(tiny(), **choices)
    engine.looks = False
    rows = len(engine.table.rows)
    with Looks() as looks:
        out = engine.sample([0, 1])
    assert torch.equal(out.samples, exact.samples) and out.stats.nfe == exact.stats.nfe
    # The watch's after each row and at the end, which a GPU leaves out but for the last, and one.
    assert looks.count == rows + 1 + 1
    engine.looks = True
    with Looks() as looks:
        engine.sample([0, 1])
    assert looks.count == rows + 1 + rows - 1  # every row but the first has a lag


@pytest.mark.parametrize("rectifier", [FDBatched(), JVP()])
@pytest.mark.parametrize("net", [TinyNet, Shy])
def test_a_vanished_lag_is_sampled_exactly_without_a_look(rectifier: object, net: type) -> None:
    choices = {"scale": 2.0, "rectify": rectifier, "steps": 5, "progress": False}
    engines = [Engine(tiny(net=net()), **choices) for _ in range(2)]
    engines[1].looks = False
    a, b = (engine.sample([0, 1], seeds=[3, 4]) for engine in engines)
    assert torch.equal(a.samples, b.samples) and a.stats.nfe == b.stats.nfe
