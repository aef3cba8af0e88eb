"""A network given as a function gets what a module gets: evaluation mode, freezing, dtype, budget,
attention."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reg_engine import Denoiser, InputError, sample, schedules
from reg_engine.networks.attention_models import set_attention
from reg_engine.networks.modules import ask


class Dropping(nn.Module):
    """Training mode with everything that a call must switch off."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(
            [nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)) for _ in range(2)]
        )
        self.attention_backend = "auto"

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


def hidden(held: nn.Module) -> Callable[..., Tensor]:
    return lambda x, t, y: held(x, 1 - t, y)


def anonymous(held: nn.Module) -> Callable[..., Tensor]:
    """A function in which nobody finds the network."""

    def rows() -> Iterator[nn.Module]:
        while True:
            yield held

    running = rows()
    return lambda x, t, y: next(running)(x, 1 - t, y)


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("rectify", ["vjp", "jvp", "fd_batched"])
def test_a_function_gets_what_a_module_gets(rectify: str, explicit: bool) -> None:
    class Turned(Dropping):
        def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            return super().forward(x, 1 - t, cond)

    def call(net: Any, **options: Any) -> Tensor:
        denoiser = Denoiser(net, "flow", schedules.Flow(), (4,), 0, **options)
        choices: dict[str, Any] = {"solver": "flow_euler", "steps": 3, "progress": False}
        budget = 1 if rectify == "vjp" else None
        out = sample(denoiser, [1, 1], rectify=rectify, memory_budget=budget, **choices)
        return out.samples

    held = Dropping()
    before = [(p.requires_grad, m.training) for m in held.modules() for p in m.parameters()]
    buffers = [b.clone() for b in held.buffers()]
    found = call(anonymous(held), modules=[held]) if explicit else call(hidden(held))
    assert torch.equal(found, call(Turned()))
    assert [(p.requires_grad, m.training) for m in held.modules() for p in m.parameters()] == before
    assert all(map(torch.equal, held.buffers(), buffers))


def test_device_dtype_and_attention_see_through_a_function() -> None:
    held = Dropping().bfloat16()
    denoiser = Denoiser(hidden(held), "flow", schedules.Flow(), (4,), 0)
    assert (denoiser.dtype, denoiser.device) == (torch.bfloat16, torch.device("cpu"))
    assert denoiser.on(schedules.EDM()).dtype == torch.bfloat16
    assert set_attention(denoiser, "math") == 1 and held.attention_backend == "math"
    out = sample(denoiser, [1], solver="euler", steps=1, scale=1.0, progress=False)
    assert out.samples.dtype == torch.float32


def test_modules_and_dtype_can_be_said() -> None:
    held = Dropping()
    denoiser = Denoiser(
        anonymous(held), "flow", schedules.Flow(), (4,), modules=held, dtype=torch.bfloat16
    )
    assert denoiser.modules == denoiser.on(schedules.EDM()).modules == (held,)
    assert denoiser.dtype == denoiser.on(schedules.EDM()).dtype == torch.bfloat16
    for wrong in ({"modules": [3]}, {"dtype": torch.float8_e4m3fn}, {"dtype": "float32"}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Denoiser(held, "flow", schedules.Flow(), (4,), **wrong)  # type: ignore[arg-type]


def test_a_network_that_is_not_found_is_told_of_once() -> None:
    held = Dropping()
    denoiser = Denoiser(anonymous(held), "flow", schedules.Flow(), (4,))
    x, labels = torch.randn(2, 4), torch.zeros(2, dtype=torch.long)
    assert denoiser.modules == ()
    with pytest.warns(UserWarning, match=r"Dropping.*modules="):
        denoiser(x, 0.5, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        denoiser(x, 0.5, labels)
        Denoiser(hidden(held), "flow", schedules.Flow(), (4,))(x, 0.5, labels)
        Denoiser(lambda x, t, y: nn.Tanh()(x), "flow", schedules.Flow(), (4,))(x, 0.5, labels)
    assert ask(lambda: 3, ()) == 3
