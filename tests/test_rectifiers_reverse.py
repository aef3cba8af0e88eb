"""What reverse mode records, recomputes and refuses; estimators inside inference mode."""

from __future__ import annotations

import pytest
import torch
from rectifier_cases import point
from torch import Tensor, nn

from reg_engine import EstimatorError
from reg_engine.guidance.directions import Delta
from reg_engine.networks.counter import Counter
from reg_engine.rectifiers import (
    FD,
    JVP,
    PRODUCTS,
    VJP,
    Diagonal,
    DiagonalBatched,
    DiagonalJVP,
    FDBatched,
    Paper,
    make,
)
from reg_engine.rectifiers.auto import choose
from reg_engine.rectifiers.reverse import saved_bytes_per_sample


@pytest.mark.parametrize(
    ("rectifier", "forward", "backward", "calls"),
    [
        (Paper(), 2, 1, [3, 3]),
        (VJP(), 2, 1, [3, 3]),
        (Diagonal(probes=4), 2, 4, [3, 3]),
        (DiagonalBatched(), 3, 0, [9]),
        (DiagonalBatched(probes=2), 4, 0, [12]),
        (FD(), 3, 0, [6, 3]),
        (FDBatched(), 3, 0, [9]),
        (JVP(), 3, 0, [9]),
        (JVP("ones"), 3, 0, [9]),
        (JVP(apart=True), 3, 0, [6, 3]),
        (JVP("ones", apart=True), 3, 0, [6, 3]),
        (JVP("delta"), 4, 0, [6, 6]),
        (DiagonalJVP(), 3, 0, [9]),
        (DiagonalJVP(probes=4), 6, 0, [18]),
    ],
)
def test_work_is_counted_and_only_cond_rows_are_recorded(
    rectifier: object, forward: int, backward: int, calls: list[int]
) -> None:
    p = point()
    p.memory["delta"] = torch.ones_like(p.x)
    rectifier(p, Delta())
    assert p.counter == Counter(3 * forward, 3 * backward)
    assert p.denoiser.net.calls == calls


def test_checkpointing_gives_the_same_and_saves_less() -> None:
    p = point()
    plain = VJP()(p, Delta())[1]
    needed = saved_bytes_per_sample(p)
    before = [block.forward for block in p.denoiser.net.blocks]
    tight = VJP(memory_budget=int(needed))  # three samples do not fit
    assert torch.allclose(tight(p, Delta())[1], plain, rtol=1e-13, atol=1e-14)
    assert [block.forward for block in p.denoiser.net.blocks] == before
    with tight._blocks(p):
        assert saved_bytes_per_sample(p) < 0.75 * needed


def test_budget_too_small_without_blocks_is_said() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(1, dtype=torch.float64))

        def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            return (self.w * x).sin() * x

    with pytest.raises(EstimatorError, match="nn.ModuleList"):
        VJP(memory_budget=1)(point(net=Flat()), Delta())


def test_estimators_run_inside_inference_mode() -> None:
    p = point()
    wanted = {name: make(name)(p, Delta())[1] for name in PRODUCTS if "diagonal" not in name}
    inside = point()
    with torch.inference_mode():
        inside.x = inside.x.clone()
        for name, value in wanted.items():
            inside.memory.clear()
            assert torch.equal(make(name)(inside, Delta())[1], value), name


def test_tensors_made_in_inference_mode_are_named() -> None:
    with torch.inference_mode():
        p = point()
    with pytest.raises(EstimatorError, match="inference_mode"):
        VJP()(p, Delta())
    assert choose(p, 3, None)[0].name == "jvp"
    assert JVP()(p, Delta())[1].isfinite().all()
