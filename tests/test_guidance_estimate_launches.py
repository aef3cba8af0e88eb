"""What is launched after the network: the engine's own cost of a row, counted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from reg_engine import (
    RECTIFIERS,
    Denoiser,
    Engine,
    Guidance,
    Rescale,
    ops,
    schedules,
)
from reg_engine.loop import watch
from reg_engine.networks import point

LABELS = torch.tensor([0, 1, 2, 1])


class _Counted(torch.autograd.Function):
    """The network, in both directions: what comes after it is counted."""

    counter: Any = None

    @staticmethod
    def forward(x: Tensor, shift: Tensor) -> Tensor:
        out = 0.9 * x + shift
        _Counted.counter.count = 0
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        out = 0.9 * grad
        _Counted.counter.count = 0
        return out, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: Any) -> Tensor:
        out = 0.9 * tangent
        _Counted.counter.count = 0
        return out


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        shift = 0.01 * cond[:, None].expand(-1, 3).to(x)
        return _Counted.apply(x, shift)


class Launches(TorchDispatchMode):
    """Counts what computes or moves something: on a GPU, what is launched."""

    VIEWS = frozenset(
        ("view", "unbind", "squeeze", "unsqueeze", "select", "slice", "split", "chunk", "expand")
        + ("detach", "alias", "_unsafe_view", "t", "transpose", "mT", "diagonal", "flatten")
        + ("reshape", "item", "lift_fresh", "empty", "empty_like", "new_empty", "_make_dual")
        + ("_unpack_dual", "is_same_size")
    )

    def __init__(self) -> None:
        super().__init__()
        self.count, self.rows = 0, []

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = op._schema.name.partition("::")[2]
        out = op(*args, **(kwargs or {}))
        same = name == "to" and out.data_ptr() == args[0].data_ptr()
        self.count += name not in self.VIEWS and not same
        if name == "guided_step":
            self.rows.append(self.count)
        return out


# After the last network pass of a row, forwards or backwards, with the numbers of each sample that
# a rescale or a lag asks for; the guided step itself is one. docs/performance.md has them too.
AFTER = {
    None: 1,
    "rescale": 26,
    "paper": 4,
    "vjp": 4,
    "diagonal": 5,
    "fd": 4,
    "jvp": 25,
    "diagonal_jvp": 13,
    "fd_batched": 23,
    "diagonal_batched": 11,
    "lazy": 71,
    "alternate": 71,
    "lazy_blend": 90,
    "blend": 27,
    "characteristic": 7,
}


@pytest.mark.parametrize("rectify", AFTER)
def test_launches_after_the_network(rectify: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if ops.resolve("cpu") != "csrc":
        pytest.skip("the compiled ops are not built")
    monkeypatch.setattr(watch.Watch, "look", lambda self: None)  # as on a GPU
    monkeypatch.setattr(point, "WORTH", 0)
    adjust = (Rescale(0.7),) if rectify == "rescale" else ()
    guidance = Guidance(3.0, rectify=None if adjust else rectify, adjust=adjust)
    denoiser = Denoiser(_Net(), "epsilon", schedules.VPLinear(), (3,), 0, num_classes=10)
    engine = Engine(
        denoiser, guidance=guidance, solver="dpmpp_2m", steps=4, progress=False, check=False
    )
    engine.looks = False
    _Counted.counter = Launches()
    with _Counted.counter as launches:
        engine.sample(LABELS)
    assert launches.rows[-1] == AFTER[rectify], launches.rows


def test_every_estimators_launches_are_stated() -> None:
    assert set(AFTER) == {None, "rescale", *RECTIFIERS}
