"""The loop of a diffusers scheduler beside the one of a table: same network, same noise.

The schedulers hold alphas_cumprod and sigmas in float32, and some cast the state to float32 in
`step`; the engine's tables are float64. That rounding is all that the tolerances leave room for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from loop import run
from torch import Tensor

from reg_engine.schedules import from_diffusers, solver_from_diffusers
from reg_engine.solvers import Row, table

TOLERANCE = 1e-5
STEPS = (1, 2, 5, 20, 50)
BATCH, WIDTH = 4, 6


class Net:
    """A fixed random MLP of (x, t) in float64, smooth in t; it notes the times it is asked at."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = (
            torch.randn(a, b, generator=generator, dtype=torch.float64) / a**0.5
            for a, b in ((WIDTH + 2, 16), (16, WIDTH))
        )
        self.times: list[float] = []

    def __call__(self, x: Tensor, t: float) -> Tensor:
        self.times.append(t)
        phase = torch.tensor([t / 1000, (t / 1000) ** 2], dtype=torch.float64)
        features = torch.cat([x.double(), phase.expand(len(x), 2)], dim=1)
        return torch.tanh(features @ self.first) @ self.second


class Told(Net):
    """The same network, told other times than it is asked at."""

    def __init__(self, times: list[float]) -> None:
        super().__init__()
        self._told = iter(times)

    def __call__(self, x: Tensor, t: float) -> Tensor:
        value = super().__call__(x, next(self._told))
        self.times[-1] = t
        return value


def noises(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    shape = (count, BATCH, WIDTH)
    return list(torch.randn(shape, generator=generator, dtype=torch.float64))


def run_theirs(
    scheduler: Any, net: Net, draws: list[Tensor], monkeypatch: Any, eta: float = 0.0
) -> Tensor:
    """The diffusers loop over the times that are set, `draws` in place of its random numbers."""
    supply = iter(draws)
    unit = next(supply)
    module = importlib.import_module(type(scheduler).__module__)
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", lambda *args, **kwargs: next(supply))
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # as pipelines do: times cut to integers may repeat
    scaled = getattr(scheduler, "scale_model_input", lambda x, t: x)
    extra = {"eta": eta} if eta else {}
    x = unit * float(getattr(scheduler, "init_noise_sigma", 1.0))
    for t in scheduler.timesteps:
        x = scheduler.step(net(scaled(x, t), float(t)), t, x, **extra).prev_sample
    return x


def tolerance(scheduler: Any) -> float:
    """1e-5, or float32's rounding of the state where that is x/alpha: of the first sigma."""
    if type(scheduler).__name__.startswith(("Euler", "EDMEuler", "Heun")):
        return max(TOLERANCE, 2**-24 * float(scheduler.sigmas.max()))
    return TOLERANCE


def vp_denoised(prediction: str) -> Callable[[Net, Tensor, Row], Tensor]:
    """Denoised from the network's output; scale_model_input of diffusers gives our x."""

    def denoised(net: Net, x: Tensor, row: Row) -> Tensor:
        out = net(x, row.t)
        return {
            "epsilon": lambda: (x - row.sigma * out) / row.alpha,
            "sample": lambda: out,
            "v_prediction": lambda: row.alpha * x - row.sigma * out,
        }[prediction]()

    return denoised


def flow_denoised(net: Net, x: Tensor, row: Row) -> Tensor:
    """Flow matching: the network returns eps - x_0, and its time in diffusers is 1000 sigma."""
    return x - row.sigma * net(x, 1000 * row.t)


def relative_error(
    scheduler: Any,
    steps: int,
    monkeypatch: Any,
    denoised: Callable[..., Tensor] | None = None,
    time_error: float = 1e-4,  # float32 holds 999 to 6e-5
    cut: bool = False,
    live: bool = False,
    mu: float | None = None,
    **options: Any,
) -> float:
    """max |ours - theirs| / max |theirs| of the final states; the times must agree too.

    Args:
        cut: diffusers cuts times to integers: our network is told the same, asked within one step.
        live: the scheduler's times are set already.
        mu: of dynamic shifting.
    """
    if not live:
        scheduler.set_timesteps(steps, **({} if mu is None else {"mu": mu}))
    name, read = solver_from_diffusers(scheduler)
    rows = table(name, from_diffusers(scheduler, mu=mu), steps, **read | options)
    theirs, draws = Net(), noises(steps + 1)
    y = run_theirs(scheduler, theirs, draws, monkeypatch, options.get("eta", 0.0))
    ours = Told(theirs.times) if cut else Net()
    view, limit = denoised or vp_denoised("epsilon"), rows.clip

    def estimate(x: Tensor, row: Row) -> Tensor:
        value = view(ours, x, row)
        return value if limit is None else value.clamp(-limit, limit)

    x = run(rows, estimate, rows.init_scale * draws[0], draws[1:])
    if name.startswith(("euler", "heun")):  # diffusers' state is x / alpha there
        y = y * rows.rows[-1].alpha_s
    assert ours.times == pytest.approx(theirs.times, rel=0, abs=1.0 if cut else time_error)
    return float((x - y).abs().max() / y.abs().max())
